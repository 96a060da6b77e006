# The pinned llama.cpp tree, fetched if need be: LLAMA_CPP_DIR, and its commit.
get_filename_component(PYTRIATTN_ROOT ${CMAKE_CURRENT_LIST_DIR} DIRECTORY)
execute_process(
    COMMAND ${Python_EXECUTABLE} ${PYTRIATTN_ROOT}/vendor/llama.cpp/fetch.py
    OUTPUT_VARIABLE LLAMA_CPP_DIR OUTPUT_STRIP_TRAILING_WHITESPACE
    RESULT_VARIABLE fetch_result)
if (NOT fetch_result EQUAL 0)
    message(FATAL_ERROR "vendor/llama.cpp/fetch.py failed; its message is above")
endif()
file(READ ${PYTRIATTN_ROOT}/vendor/llama.cpp/pin.json pin)
string(REGEX MATCH "\"llama_cpp_commit\": *\"([^\"]+)\"" _ "${pin}")
set(PYTRIATTN_LLAMA_COMMIT ${CMAKE_MATCH_1})
