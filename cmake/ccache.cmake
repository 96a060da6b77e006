# Compile through ccache where there is one. The base directory makes hits possible across checkouts.
find_program(PYTRIATTN_CCACHE ccache)
if (PYTRIATTN_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
    set(launcher ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${PYTRIATTN_CCACHE})
    set(CMAKE_C_COMPILER_LAUNCHER ${launcher})
    set(CMAKE_CXX_COMPILER_LAUNCHER ${launcher})
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${launcher})
endif()
set(GGML_CCACHE OFF CACHE BOOL "" FORCE)
