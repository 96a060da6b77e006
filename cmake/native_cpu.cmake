# What -march=native would use, said through ggml's own options, so that the CPU backend can still be a module.
if (CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64|i686)$" AND NOT MSVC)
    execute_process(
        COMMAND ${CMAKE_CXX_COMPILER} -march=native -dM -E -x c++ /dev/null
        OUTPUT_VARIABLE macros RESULT_VARIABLE result ERROR_QUIET)
    if (NOT result EQUAL 0)
        message(FATAL_ERROR "${CMAKE_CXX_COMPILER} cannot tell this CPU's instructions; use -DPYTRIATTN_CPU=all")
    endif()
    # ggml's AVX512 is one switch for F, CD, VL, DQ and BW together.
    foreach(pair
            "SSE42:SSE4_2" "AVX:AVX" "AVX2:AVX2" "BMI2:BMI2" "FMA:FMA" "F16C:F16C" "AVX_VNNI:AVXVNNI"
            "AVX512:AVX512F AVX512CD AVX512VL AVX512DQ AVX512BW"
            "AVX512_VBMI:AVX512VBMI" "AVX512_VNNI:AVX512VNNI" "AVX512_BF16:AVX512BF16"
            "AMX_TILE:AMX_TILE" "AMX_INT8:AMX_INT8" "AMX_BF16:AMX_BF16")
        string(REGEX MATCH "^([^:]+):(.*)$" _ "${pair}")
        set(option GGML_${CMAKE_MATCH_1})
        string(REPLACE " " ";" needed "${CMAKE_MATCH_2}")
        set(have ON)
        foreach(macro ${needed})
            if (NOT macros MATCHES "#define __${macro}__ ")
                set(have OFF)
            endif()
        endforeach()
        set(${option} ${have} CACHE BOOL "" FORCE)
    endforeach()
elseif (CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$" AND NOT APPLE)
    set(GGML_CPU_ARM_ARCH "native" CACHE STRING "" FORCE)
endif()
