// The slots of upstream's server as sequences of a context, each with a budget and a question of its own.
#pragma once

#include "attention_probe.h"
#include "controller.h"
#include "decoder_params.h"
#include "question.h"
#include "question_reader.h"
#include "stats.h"

#include "common.h"
#include "server-task.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace pytriattn::server {

// What is known of a slot; other threads ask for it while the server computes.
struct SlotState {
    int32_t budget = 0;
    uint32_t n_keys = 0;
    Question question;  // where it stands: positions
    triattn::EvictionCounters counters;
};

struct Totals {
    int64_t n_evictions = 0, n_tokens_evicted = 0;
    double seconds = 0;
};

// What is known of a request before a slot takes it.
struct Wishes {
    std::optional<int32_t> budget;  // none: the server's
    Question question;
};

// The controller of the server's context.
class Slots : public triattn::Controller {
public:
    Slots(llama_context * ctx, const triattn::EvictionConfig & config, triattn::Stats stats,
          const triattn::DecoderParams & params);

    bool guards(const llama_context * ctx) const { return ctx == ctx_; }
    int32_t n_slots() const { return params_.n_seq_max; }
    // Of a key and its value in all layers and heads that are evicted from.
    size_t bytes_per_key() const { return bytes_per_key_; }

    // A slot begins a task; its budget and question take effect at its first step. With `protects_prompt`, nothing of
    // the prompt is evicted.
    void start(int32_t slot, const server_task & task, const Wishes & wishes, bool protects_prompt);

    // After every change: for other threads.
    void publish();
    std::vector<SlotState> states() const;
    Totals totals() const;

    // Around a step, where tokens are read once more before evictions. Between both, and not in a step of llama.cpp's: this
    // is one itself. Throws DecodeError.
    void prepare_step(const std::vector<common_batch::token> & tokens);
    void step_was_made(const std::vector<common_batch::token> & tokens);

    void before_step(const std::vector<triattn::StepToken> & tokens) override;
    void was_removed(int32_t seq, int32_t begin, int32_t end) override;
    void was_copied(int32_t from, int32_t to) override;
    void context_ends() override;

private:
    struct Work {
        int32_t budget = 0;
        triattn::LayerQueries question;
        Question asked;       // positions
        int32_t further = 0;  // see Controller::set_question
        int32_t n_protected = 0;
        bool is_set = false;
    };

    // The newest tokens of a slot, up to a position; where an image came in between, those behind it.
    struct Recent {
        std::vector<llama_token> tokens;
        int32_t end = 0;
    };

    triattn::QuestionReader & reader();
    void take_work(int32_t slot);
    void reread_and_evict(int32_t slot);

    llama_context * ctx_;            // null: it is gone
    std::map<int32_t, Work> works_;  // of slots that have begun a task
    triattn::DecoderParams params_;
    std::unique_ptr<triattn::QuestionReader> reader_;
    size_t bytes_per_key_;
    std::map<int32_t, Recent> recent_;  // with EvictionConfig::reread
    mutable std::mutex mutex_;
    std::vector<SlotState> states_;
    Totals totals_;
};

}  // namespace pytriattn::server
