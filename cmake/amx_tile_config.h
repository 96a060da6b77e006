// Put in front of ggml's AMX code. GCC's own _tile_loadconfig tells the compiler that eight bytes of the 64 are read
// (GCC 12 and others): the rest is then left out as never used, and the first tile instruction ends the process with
// SIGILL. As a macro, this one comes before the compiler's function.
#pragma once

#if defined(__GNUC__) && !defined(__clang__) && defined(__AMX_TILE__)
#    include <immintrin.h>
#    undef _tile_loadconfig
#    define _tile_loadconfig(config) \
        __asm__ volatile("ldtilecfg\t%X0" : : "m"(*reinterpret_cast<const char(*)[64]>(config)))
#endif
