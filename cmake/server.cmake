# llama.cpp's server as libraries, compiled from upstream's files as they are, for the module pytriattn._server. Upstream's
# own targets would bring programs, installation rules and a web page that is downloaded.

find_package(Threads REQUIRED)
set(tools ${LLAMA_CPP_DIR}/tools)

# The part of common that drafts tokens, for both modules.
set(drafting ngram-cache.cpp ngram-map.cpp ngram-mod.cpp speculative.cpp)
set(server_common ${PYTRIATTN_UNUSED_COMMON})
list(REMOVE_ITEM server_common console.cpp debug.cpp imatrix-loader.cpp llguidance.cpp ${drafting})
list(TRANSFORM drafting PREPEND ${LLAMA_CPP_DIR}/common/)
add_library(pytriattn-drafting STATIC ${drafting})
target_link_libraries(pytriattn-drafting PUBLIC llama-common)

# The part of common that only the server uses.
list(TRANSFORM server_common PREPEND ${LLAMA_CPP_DIR}/common/)

file(GLOB mtmd CONFIGURE_DEPENDS ${tools}/mtmd/clip.cpp ${tools}/mtmd/mtmd*.cpp ${tools}/mtmd/models/*.cpp)
list(FILTER mtmd EXCLUDE REGEX "mtmd-cli\\.cpp$")
file(GLOB server CONFIGURE_DEPENDS ${tools}/server/server*.cpp)

# No web page is compiled in; web_page.cmake may build one as files, which the program serves.
set(N_ASSETS 0)
set(USE_GZIP false)
configure_file(${tools}/ui/ui.h.in ${CMAKE_BINARY_DIR}/server/ui.h)
configure_file(${tools}/ui/ui.cpp.in ${CMAKE_BINARY_DIR}/server/ui.cpp)

add_library(pytriattn-mtmd STATIC ${mtmd})
target_include_directories(pytriattn-mtmd PUBLIC ${tools}/mtmd)
target_link_libraries(pytriattn-mtmd PUBLIC ggml llama
    PRIVATE Threads::Threads vendor::hash vendor::miniaudio vendor::stb vendor::sheredom)

add_library(pytriattn-llama-server STATIC ${server_common} ${server} ${CMAKE_BINARY_DIR}/server/ui.cpp)
target_include_directories(pytriattn-llama-server PUBLIC
    ${tools}/server ${LLAMA_CPP_DIR} ${CMAKE_BINARY_DIR}/server ${CMAKE_SOURCE_DIR}/bindings/server)
target_compile_definitions(pytriattn-llama-server PUBLIC LLAMA_SUBPROCESS)
target_link_libraries(pytriattn-llama-server PUBLIC pytriattn-drafting llama-common pytriattn-mtmd cpp-httplib triattention
    PRIVATE Threads::Threads)

# As in build_time.cmake: many files at a time.
file(GLOB whole ${tools}/mtmd/*.cpp)
set_source_files_properties(${whole} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
set_target_properties(pytriattn-drafting PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 4 UNITY_BUILD_RELOCATABLE ON)
set_target_properties(pytriattn-mtmd PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 30 UNITY_BUILD_RELOCATABLE ON)
set_target_properties(pytriattn-llama-server PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 12 UNITY_BUILD_RELOCATABLE ON)
target_compile_options(cpp-httplib PRIVATE ${PYTRIATTN_COLD_OPTIONS})

# bindings/server/hooks.h: how a budget comes in without a patch
set(include "$<IF:$<CXX_COMPILER_ID:MSVC>,/FI,-include>")
foreach(pair "server-context.cpp:CONTEXT" "server.cpp:ROUTES")
    string(REGEX MATCH "^(.*):(.*)$" _ "${pair}")
    set_source_files_properties(${tools}/server/${CMAKE_MATCH_1} PROPERTIES
        COMPILE_DEFINITIONS PYTRIATTN_HOOK_${CMAKE_MATCH_2} SKIP_UNITY_BUILD_INCLUSION ON
        COMPILE_OPTIONS "${include};${CMAKE_SOURCE_DIR}/bindings/server/hooks.h"
        OBJECT_DEPENDS ${CMAKE_SOURCE_DIR}/bindings/server/hooks.h)
endforeach()

foreach(target pytriattn-drafting pytriattn-mtmd pytriattn-llama-server)
    target_compile_features(${target} PRIVATE cxx_std_17)
    target_compile_options(${target} PRIVATE ${PYTRIATTN_COLD_OPTIONS}
        "$<$<CXX_COMPILER_ID:GNU,Clang,AppleClang>:-w>" "$<$<CXX_COMPILER_ID:MSVC>:/utf-8;/bigobj;/w>")
endforeach()

include(${CMAKE_CURRENT_LIST_DIR}/web_page.cmake)
