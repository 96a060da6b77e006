// What stands around a key that gets attention.
#pragma once

#include <cstdint>
#include <vector>

namespace triattn {

// The attention of keys at these positions, one number a key, spread over their neighbours: a key at p gives what it gets
// to those at p - back .. p + forward, and each has the most that it is given. An answer stands behind what its question
// matches.
std::vector<float> spread_attention(const float * values, const std::vector<int32_t> & positions, int32_t back,
                                    int32_t forward);

}  // namespace triattn
