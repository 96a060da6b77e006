// The engine's exceptions. The bindings map each to a Python type of the same name (pytriattn/errors.py).
#pragma once

#include <stdexcept>

namespace triattn {

struct Error : std::runtime_error { using std::runtime_error::runtime_error; };

struct ModelLoadError : Error { using Error::Error; };
struct UnsupportedModelError : Error { using Error::Error; };
struct BudgetError : Error { using Error::Error; };
struct StatsError : Error { using Error::Error; };
struct ContextError : Error { using Error::Error; };      // a context could not be made
struct ContextFullError : Error { using Error::Error; };  // positions beyond n_ctx
struct DecodeError : Error { using Error::Error; };
struct InterruptedError : Error { using Error::Error; };  // the caller's `interrupted` said so
struct InvalidTokenError : Error { using Error::Error; };

}  // namespace triattn
