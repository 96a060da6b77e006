# A plug-in wheel: one backend module built from the same pin and by the same code as the base package's.
# pytriattn_plugin(cuda) makes the package pytriattn_cuda13's module and its descriptor; call it after project().
get_filename_component(PYTRIATTN_ROOT ${CMAKE_CURRENT_LIST_DIR} DIRECTORY)

macro(pytriattn_plugin backend package)
    find_package(Python 3.10 COMPONENTS Interpreter REQUIRED)
    include(${PYTRIATTN_ROOT}/cmake/llama_cpp.cmake)

    string(TOUPPER ${backend} backend_id)
    set(GGML_${backend_id} ON CACHE BOOL "" FORCE)
    foreach(other CPU CUDA HIP VULKAN METAL BLAS RPC)
        if (NOT other STREQUAL backend_id)
            set(GGML_${other} OFF CACHE BOOL "" FORCE)
        endif()
    endforeach()
    include(${PYTRIATTN_ROOT}/cmake/ccache.cmake)
    include(${PYTRIATTN_ROOT}/cmake/ggml.cmake)
    include(${PYTRIATTN_ROOT}/cmake/descriptor.cmake)

    # ggml-base is built to link against and is not installed: at run time the base package's own is there already.
    add_custom_target(plugin ALL DEPENDS ggml-${backend})
    pytriattn_descriptor(${CMAKE_CURRENT_BINARY_DIR}/backend.json ggml-${backend})
    install(TARGETS ggml-${backend} COMPONENT plugin LIBRARY DESTINATION ${package} RUNTIME DESTINATION ${package})
    install(FILES ${CMAKE_CURRENT_BINARY_DIR}/backend.json COMPONENT plugin DESTINATION ${package})
    install(FILES ${LLAMA_CPP_DIR}/LICENSE COMPONENT plugin DESTINATION ${package}/licenses RENAME LICENSE-llama.cpp)
endmacro()
