#include "standing_questions.h"

#include "errors.h"
#include "query_sets.h"
#include "question_reader.h"

#include "common.h"

namespace triattn {
namespace {

// The last tokens ask for the answer; those before them look for what the question itself says.
constexpr size_t LAST_TOKENS = 3;

// A vocabulary that needs more tokens for the default questions than one for two bytes has not learned English. To its
// model they say nothing, and what they look for is chance.
bool knows_words(const std::vector<std::string> & questions, const std::vector<std::vector<llama_token>> & tokens) {
    size_t n_bytes = 0, n_tokens = 0;
    for (size_t i = 0; i < questions.size(); ++i) {
        n_bytes += questions[i].size();
        n_tokens += tokens[i].size();
    }
    return n_bytes >= 2 * n_tokens;
}

}  // namespace

const std::vector<std::string> & default_standing_questions() {
    static const std::vector<std::string> questions = {
        "\nQuestion: Who said it, and where did it happen?\nAnswer: It was",
        "\nQuestion: What is the number that was mentioned?\nAnswer: The number is",
        "\nQuestion: What is the name?\nAnswer: The name is",
        "\nQuestion: When was it, and how much did it cost?\nAnswer: It cost",
        "\nQuestion: What is the most important thing to remember?\nAnswer: The most important thing is",
        "\nUser: What did I tell you about myself?\nAssistant: You told me that",
        "\nIn summary, the text above says that",
        "\nQuestion: How many are there?\nAnswer: There are",
        "\nQuestion: What colour is it?\nAnswer: The colour is",
        "\nQuestion: Where does he live?\nAnswer: He lives in",
        "\nQuestion: What is the value of x?\nAnswer: x =",
    };
    return questions;
}

std::vector<std::vector<llama_token>> standing_question_tokens(const llama_vocab * vocab,
                                                               const std::vector<std::string> & questions) {
    std::vector<std::vector<llama_token>> result;
    if (llama_vocab_type(vocab) == LLAMA_VOCAB_TYPE_NONE) {
        return result;
    }
    for (const std::string & question : questions) {
        result.push_back(common_tokenize(vocab, question, /*add_special*/ false));
        const size_t n = result.back().size();
        if (n == 0 || n > static_cast<size_t>(QuestionReader::MAX_TOKENS)) {
            throw BudgetError("the standing question '" + question + "' has " + std::to_string(n) +
                              " tokens; give it at least one and at most " +
                              std::to_string(QuestionReader::MAX_TOKENS));
        }
    }
    if (questions == default_standing_questions() && !knows_words(questions, result)) {
        result.clear();
    }
    return result;
}

LayerQueries read_standing_questions(QuestionReader & reader, const std::vector<std::vector<llama_token>> & questions) {
    LayerQueries all;
    for (const std::vector<llama_token> & question : questions) {
        LayerQueries queries = reader.read(question);
        keep_newest(queries, LAST_TOKENS);
        append(all, std::move(queries));
    }
    return all;
}

}  // namespace triattn
