# ggml out of the llama.cpp tree: shared libraries under private names, and its backends as loadable modules.
# The one code path for `pip install .` (with any GGML_<BACKEND>=ON) and for the plug-in wheels under plugins/.

set(GGML_BACKEND_DL ON CACHE BOOL "" FORCE)
set(GGML_NATIVE OFF CACHE BOOL "" FORCE)   # does not go with loadable backends: see native_cpu.cmake
set(GGML_ALL_WARNINGS OFF CACHE BOOL "" FORCE)

# llama.cpp's default, which it sets only where it adds ggml itself: products of many rows are computed tile by tile.
# Prompts of F16, Q8_0 or Q5_0 weights are read 1.5 to 2 times as fast.
set(GGML_LLAMAFILE ON CACHE BOOL "" FORCE)

# CUDA: no link to the driver's library, so that the module loads (with no devices) where there is no driver.
set(GGML_CUDA_NO_VMM ON CACHE BOOL "")
set(GGML_CUDA_GRAPHS ON CACHE BOOL "")     # llama.cpp's default; ggml's own is OFF
set(GGML_CUDA_NCCL OFF CACHE BOOL "")      # would be found or not by chance, and must then be there at run time

set(BUILD_SHARED_LIBS ON)
add_subdirectory(${LLAMA_CPP_DIR}/ggml ${CMAKE_BINARY_DIR}/ggml EXCLUDE_FROM_ALL)
set(BUILD_SHARED_LIBS OFF)

if (APPLE)
    set(PYTRIATTN_ORIGIN "@loader_path")
else()
    set(PYTRIATTN_ORIGIN "$ORIGIN")
endif()

# Private names: another package's libggml-base in the same process must never be taken for ours.
foreach(library ggml-base ggml)
    set_target_properties(${library} PROPERTIES OUTPUT_NAME pytriattn-${library} INSTALL_RPATH "${PYTRIATTN_ORIGIN}")
    set_property(TARGET ${library} PROPERTY VERSION)
    set_property(TARGET ${library} PROPERTY SOVERSION)
endforeach()

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
foreach(backend ${PYTRIATTN_BACKENDS})
    set_target_properties(${backend} PROPERTIES OUTPUT_NAME pytriattn-${backend} INSTALL_RPATH "${PYTRIATTN_ORIGIN}")
    set_property(TARGET ${backend} PROPERTY VERSION)
    set_property(TARGET ${backend} PROPERTY SOVERSION)
    if (backend MATCHES "^ggml-cpu" AND NOT MSVC)
        set_source_files_properties(${LLAMA_CPP_DIR}/ggml/src/ggml-cpu/amx/mmq.cpp TARGET_DIRECTORY ${backend}
            PROPERTIES COMPILE_OPTIONS "-include;${CMAKE_CURRENT_LIST_DIR}/amx_tile_config.h")
    endif()
endforeach()
message(STATUS "ggml backends: ${PYTRIATTN_BACKENDS}")

# The type KV3, which the patches of llama.cpp make known to ggml: its code is ours.
set(PYTRIATTN_KV3 ${PYTRIATTN_ROOT}/vendor/llama.cpp/kv3)
target_sources(ggml-base PRIVATE ${PYTRIATTN_KV3}/kv3.cpp)
target_include_directories(ggml-base PRIVATE ${PYTRIATTN_KV3})
foreach(backend ${PYTRIATTN_BACKENDS})
    if (backend MATCHES "^ggml-cpu")
        target_sources(${backend} PRIVATE ${PYTRIATTN_KV3}/kv3_cpu.cpp)
    elseif (backend MATCHES "^ggml-(cuda|hip|musa)$")
        # one instance of attention's vector kernel a file; the language is that of the backend's other files
        file(GLOB instances ${PYTRIATTN_KV3}/*.cu)
        get_source_file_property(language ${LLAMA_CPP_DIR}/ggml/src/ggml-cuda/set-rows.cu
            TARGET_DIRECTORY ${backend} LANGUAGE)
        if (NOT backend STREQUAL "ggml-cuda" AND language)
            set_source_files_properties(${instances} TARGET_DIRECTORY ${backend} PROPERTIES LANGUAGE ${language})
        endif()
        target_sources(${backend} PRIVATE ${instances})
    endif()
    target_include_directories(${backend} PRIVATE ${PYTRIATTN_KV3})
endforeach()
