# Adds llama.cpp in two steps: ggml as shared libraries with loadable backends (ggml.cmake), then libllama and common as
# static libraries on top of it, so that one extension module holds everything but the backends.

# Named here, since upstream would otherwise ask git about *our* repository.
set(LLAMA_BUILD_NUMBER 0)
set(LLAMA_BUILD_COMMIT ${PYTRIATTN_LLAMA_COMMIT})

set(LLAMA_BUILD_COMMON ON CACHE BOOL "" FORCE)
foreach(part ALL_WARNINGS OPENSSL BUILD_TESTS BUILD_TOOLS BUILD_EXAMPLES BUILD_SERVER BUILD_APP LLGUIDANCE SUBPROCESS)
    set(LLAMA_${part} OFF CACHE BOOL "" FORCE)
endforeach()

if (PYTRIATTN_CPU STREQUAL "all")
    set(GGML_CPU_ALL_VARIANTS ON CACHE BOOL "" FORCE)
elseif (PYTRIATTN_CPU STREQUAL "native")
    include(cmake/native_cpu.cmake)
else()
    message(FATAL_ERROR "PYTRIATTN_CPU is '${PYTRIATTN_CPU}'; it must be 'native' or 'all'")
endif()

set(GGML_RPC ON CACHE BOOL "" FORCE)        # devices of other machines
set(GGML_RPC_RDMA OFF CACHE BOOL "" FORCE)  # would link libibverbs wherever it is found; connections are TCP here (bindings/rpc/link.h)

include(cmake/ggml.cmake)
add_subdirectory(${LLAMA_CPP_DIR} ${CMAKE_BINARY_DIR}/llama.cpp EXCLUDE_FROM_ALL)

# A build in one piece finds its GPU's runtime libraries where it was linked against them.
set_target_properties(${PYTRIATTN_BACKENDS} PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
