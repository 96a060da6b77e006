# What makes the first build short. Nothing here changes what the code computes; what runs for every token and key keeps
# -O3.
# - Files of llama.cpp that nothing here calls are not compiled.
# - Files are compiled several at once (CMake's "unity build"): most of their time goes into headers that they share.
# - What is called a few times for each token or less is compiled with -Og, which takes a quarter less time than -O1:
#   building graphs, loading, chat templates, the server.

# what runs for every key, or for every token of the vocabulary
set(PYTRIATTN_HOT_LLAMA
    llama-grammar.cpp llama-kv-cache.cpp llama-kv-cache-iswa.cpp llama-sampler.cpp llama-vocab.cpp unicode.cpp)
set(PYTRIATTN_UNUSED_LLAMA llama-quant.cpp)
set(PYTRIATTN_UNUSED_COMMON
    arg.cpp console.cpp debug.cpp download.cpp fit.cpp hf-cache.cpp imatrix-loader.cpp llguidance.cpp ngram-cache.cpp
    ngram-map.cpp ngram-mod.cpp preset.cpp speculative.cpp subproc.cpp)

set(release "$<AND:$<CONFIG:Release>,$<CXX_COMPILER_ID:GNU,Clang,AppleClang>>")
set(PYTRIATTN_COLD_OPTIONS "$<${release}:-Og>")
set(PYTRIATTN_HOT_OPTIONS "$<${release}:-O3>")

# libllama in two parts. The upstream target keeps the hot files; the rest is an object library that goes into it.
get_target_property(sources llama SOURCES)
list(REMOVE_ITEM sources ${PYTRIATTN_HOT_LLAMA} ${PYTRIATTN_UNUSED_LLAMA})
list(FILTER sources INCLUDE REGEX "\\.cpp$")
set(cold "")
foreach(source ${sources})
    get_filename_component(source ${source} ABSOLUTE BASE_DIR ${LLAMA_CPP_DIR}/src)
    list(APPEND cold ${source})
endforeach()
add_library(llama-cold OBJECT ${cold})
target_include_directories(llama-cold PRIVATE $<TARGET_PROPERTY:llama,INCLUDE_DIRECTORIES>)
target_compile_definitions(llama-cold PRIVATE $<TARGET_PROPERTY:llama,COMPILE_DEFINITIONS>)
target_link_libraries(llama-cold PRIVATE ggml)
target_compile_features(llama-cold PRIVATE cxx_std_17)
target_compile_options(llama-cold PRIVATE ${PYTRIATTN_COLD_OPTIONS} "$<$<CXX_COMPILER_ID:MSVC>:/utf-8;/bigobj>")
set_target_properties(llama-cold PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 70)
# files with helpers of the same names as others'
set_source_files_properties(
    ${LLAMA_CPP_DIR}/src/llama-kv-cache-dsv4.cpp ${LLAMA_CPP_DIR}/src/models/glm5-next.cpp
    PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)

set_property(TARGET llama PROPERTY SOURCES ${PYTRIATTN_HOT_LLAMA} $<TARGET_OBJECTS:llama-cold>)
set_target_properties(llama PROPERTIES UNITY_BUILD_BATCH_SIZE 6)
list(TRANSFORM PYTRIATTN_HOT_LLAMA PREPEND ${LLAMA_CPP_DIR}/src/ OUTPUT_VARIABLE hot)
set_source_files_properties(${hot} TARGET_DIRECTORY llama PROPERTIES SKIP_UNITY_BUILD_INCLUSION OFF)

get_target_property(common llama-common SOURCES)
list(REMOVE_ITEM common ${PYTRIATTN_UNUSED_COMMON} json.cpp jinja/value.cpp)
list(PREPEND common json.cpp jinja/value.cpp)  # they specialise templates that the others use
set_property(TARGET llama-common PROPERTY SOURCES ${common})
foreach(property LINK_LIBRARIES INTERFACE_LINK_LIBRARIES)
    get_target_property(libraries llama-common ${property})
    list(REMOVE_ITEM libraries cpp-httplib "$<LINK_ONLY:cpp-httplib>")
    set_property(TARGET llama-common PROPERTY ${property} ${libraries})
endforeach()
target_compile_options(llama-common PRIVATE ${PYTRIATTN_COLD_OPTIONS})
set_target_properties(llama-common PROPERTIES
    UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 20 UNITY_BUILD_CODE_BEFORE_INCLUDE "#undef FILENAME")
set_source_files_properties(${LLAMA_CPP_DIR}/common/sampling.cpp
    TARGET_DIRECTORY llama-common PROPERTIES COMPILE_OPTIONS ${PYTRIATTN_HOT_OPTIONS})

set(cold gguf.cpp ggml-backend-meta.cpp ggml-opt.cpp)
list(TRANSFORM cold PREPEND ${LLAMA_CPP_DIR}/ggml/src/)
set_source_files_properties(${cold} TARGET_DIRECTORY ggml-base PROPERTIES COMPILE_OPTIONS ${PYTRIATTN_COLD_OPTIONS})

# CMake 4 lets the files that it writes name what they include by relative paths: ccache then hits in every checkout.
set_target_properties(llama llama-cold llama-common PROPERTIES UNITY_BUILD_RELOCATABLE ON)
