// Puts a guard between a context and its memory: whoever uses the context, through whatever part of llama.cpp, the guard
// hears of it before the cache changes.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

struct llama_context;

namespace triattn {

// One token of a step.
struct StepToken {
    int32_t seq;
    int32_t position;
    bool is_image = false;  // of an image with rows and columns, whose tokens share a position
};

// What is known of a sequence's cache beside its cells. Exceptions of these come out of the call of llama.cpp that asked.
class MemoryGuard {
public:
    virtual ~MemoryGuard() = default;

    // A step comes next. Its tokens have no cells yet, so room can still be made.
    virtual void before_step(const std::vector<StepToken> & tokens) = 0;
    // The same tokens in the order in which they will be computed; now they have cells.
    virtual void step_is_laid_out(const std::vector<StepToken> & tokens) = 0;

    // Whether the sequence can be without its positions [begin, end).
    virtual bool may_remove(int32_t seq, int32_t begin, int32_t end) = 0;
    virtual void was_removed(int32_t seq, int32_t begin, int32_t end) = 0;
    virtual void was_copied(int32_t from, int32_t to) = 0;
    // The first position to which the sequence can be cut back.
    virtual int32_t least_length(int32_t seq) const = 0;

    // What a saved sequence has to hold beside its cells, and back, when they are there again.
    virtual std::vector<uint8_t> save(int32_t seq) = 0;
    virtual void load(int32_t seq, const std::vector<uint8_t> & bytes) = 0;

    // The context is being destroyed and must not be used any more.
    virtual void context_ends() = 0;
};

// From now on `guard` hears of everything. A sequence is then saved whole by llama.cpp's functions, also where they are
// asked for a part. Positions of guarded sequences cannot be shifted.
void set_guard(llama_context * ctx, std::shared_ptr<MemoryGuard> guard);

// From now on a context says that each of its sequences can have `n` positions, whatever its cache has cells for.
void set_positions(llama_context * ctx, uint32_t n);

}  // namespace triattn
