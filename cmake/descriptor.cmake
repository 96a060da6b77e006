# What backend modules were built from, as backend.json beside them. A plug-in's must equal the base package's before
# anything of it is loaded: ggml itself compares an API number only, not the layout of its structs.
file(READ ${PYTRIATTN_ROOT}/pyproject.toml pyproject)
string(REGEX MATCH "\nversion = \"([^\"]+)\"" _ "${pyproject}")
set(PYTRIATTN_VERSION ${CMAKE_MATCH_1})

# The headers that ggml-base and a module share, and the patches, which add types. Hashed, since
# PYTRIATTN_LLAMA_CPP_DIR may name a tree of another state.
file(GLOB headers ${LLAMA_CPP_DIR}/ggml/include/*.h ${LLAMA_CPP_DIR}/ggml/src/*.h
    ${PYTRIATTN_ROOT}/vendor/llama.cpp/kv3/kv3.h ${PYTRIATTN_ROOT}/vendor/llama.cpp/patches/*.patch)
list(SORT headers)
set(hashes "")
foreach(header ${headers})
    file(SHA256 ${header} hash)
    string(APPEND hashes ${hash})
endforeach()
string(SHA256 PYTRIATTN_HEADERS_HASH "${hashes}")

# pytriattn_descriptor(file target...): the targets are the modules that it describes.
function(pytriattn_descriptor path)
    math(EXPR bits "${CMAKE_SIZEOF_VOID_P} * 8")
    # GGML_MAX_NAME and its like, which change structs and are given as compiler flags
    string(REGEX MATCHALL "-D *GGML_[A-Z_]+(=[A-Za-z0-9_]+)?" definitions "${CMAKE_C_FLAGS} ${CMAKE_CXX_FLAGS}")
    list(SORT definitions)
    list(REMOVE_DUPLICATES definitions)
    set(settings "\
    \"GGML_SCHED_MAX_COPIES\": \"${GGML_SCHED_MAX_COPIES}\",
    \"bits\": \"${bits}\",
    \"definitions\": \"${definitions}\",
    \"ggml_headers\": \"${PYTRIATTN_HEADERS_HASH}\",
    \"processor\": \"${CMAKE_SYSTEM_PROCESSOR}\",
    \"system\": \"${CMAKE_SYSTEM_NAME}\"")
    string(SHA256 build "${settings}")
    set(modules "")
    foreach(target ${ARGN})
        list(APPEND modules "\"$<TARGET_FILE_NAME:${target}>\"")
    endforeach()
    list(JOIN modules ", " modules)
    file(GENERATE OUTPUT ${path} CONTENT "{
  \"pytriattn\": \"${PYTRIATTN_VERSION}\",
  \"llama_cpp\": \"${PYTRIATTN_LLAMA_COMMIT}\",
  \"build\": \"${build}\",
  \"settings\": {
${settings}
  },
  \"modules\": [${modules}]
}
")
endfunction()
