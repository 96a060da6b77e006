# Adds llama.cpp in two steps: ggml as shared libraries with loadable backends, then libllama and common as static
# libraries on top of it, so that one extension module holds everything but the backends.

file(READ ${CMAKE_SOURCE_DIR}/vendor/llama.cpp/pin.json pin)
string(REGEX MATCH "\"llama_cpp_commit\": *\"([^\"]+)\"" _ "${pin}")
# Named here, since upstream would otherwise ask git about *our* repository.
set(LLAMA_BUILD_NUMBER 0)
set(LLAMA_BUILD_COMMIT ${CMAKE_MATCH_1})
set(PYTRIATTN_LLAMA_COMMIT ${CMAKE_MATCH_1})

set(LLAMA_BUILD_COMMON ON CACHE BOOL "" FORCE)
foreach(part OPENSSL BUILD_TESTS BUILD_TOOLS BUILD_EXAMPLES BUILD_SERVER BUILD_APP LLGUIDANCE SUBPROCESS)
    set(LLAMA_${part} OFF CACHE BOOL "" FORCE)
endforeach()

set(GGML_BACKEND_DL ON CACHE BOOL "" FORCE)
set(GGML_NATIVE OFF CACHE BOOL "" FORCE)   # does not go with loadable backends: see native_cpu.cmake
if (PYTRIATTN_CPU STREQUAL "all")
    set(GGML_CPU_ALL_VARIANTS ON CACHE BOOL "" FORCE)
elseif (PYTRIATTN_CPU STREQUAL "native")
    include(cmake/native_cpu.cmake)
else()
    message(FATAL_ERROR "PYTRIATTN_CPU is '${PYTRIATTN_CPU}'; it must be 'native' or 'all'")
endif()

set(BUILD_SHARED_LIBS ON)
add_subdirectory(${LLAMA_CPP_DIR}/ggml ${CMAKE_BINARY_DIR}/ggml EXCLUDE_FROM_ALL)
set(BUILD_SHARED_LIBS OFF)
add_subdirectory(${LLAMA_CPP_DIR} ${CMAKE_BINARY_DIR}/llama.cpp EXCLUDE_FROM_ALL)

# Private names: another package's libggml-base in the same process must never be taken for ours.
foreach(library ggml-base ggml)
    set_target_properties(${library} PROPERTIES OUTPUT_NAME pytriattn-${library} INSTALL_RPATH "$ORIGIN")
    set_property(TARGET ${library} PROPERTY VERSION)
    set_property(TARGET ${library} PROPERTY SOVERSION)
endforeach()
if (APPLE)
    set_target_properties(ggml-base ggml PROPERTIES INSTALL_RPATH "@loader_path")
endif()

# The backends that were configured, as loadable modules: never linked, so they must be named to be built.
set(PYTRIATTN_BACKENDS "")
function(pytriattn_collect_backends directory)
    get_property(targets DIRECTORY ${directory} PROPERTY BUILDSYSTEM_TARGETS)
    get_property(children DIRECTORY ${directory} PROPERTY SUBDIRECTORIES)
    foreach(target ${targets})
        get_target_property(type ${target} TYPE)
        if (type STREQUAL "MODULE_LIBRARY" AND target MATCHES "^ggml-")
            list(APPEND PYTRIATTN_BACKENDS ${target})
        endif()
    endforeach()
    foreach(child ${children})
        pytriattn_collect_backends(${child})
    endforeach()
    set(PYTRIATTN_BACKENDS ${PYTRIATTN_BACKENDS} PARENT_SCOPE)
endfunction()
pytriattn_collect_backends(${LLAMA_CPP_DIR}/ggml)
if (NOT PYTRIATTN_BACKENDS)
    message(FATAL_ERROR "no ggml backend module was configured")
endif()
set_target_properties(${PYTRIATTN_BACKENDS} PROPERTIES INSTALL_RPATH "$<IF:$<PLATFORM_ID:Darwin>,@loader_path,$ORIGIN>")
message(STATUS "ggml backends: ${PYTRIATTN_BACKENDS}")
