// Included before ggml's AMX code. GCC's _tile_loadconfig tells the compiler that it reads 8 bytes, but it reads 64: GCC
// then leaves out what ggml wrote to the others, and the first use of a tile ends the process with SIGILL.
#pragma once

#if defined(__GNUC__) && !defined(__clang__) && defined(__AMX_TILE__)
#include <immintrin.h>

static inline void load_tile_config(const void * config) {
    struct Bytes {
        char bytes[64];
    };
    __asm__ volatile("ldtilecfg\t%X0" ::"m"(*static_cast<const Bytes *>(config)));
}
#define _tile_loadconfig load_tile_config
#endif
