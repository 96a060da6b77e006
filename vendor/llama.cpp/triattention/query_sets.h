// Working with captured queries: joining, cutting back, turning to other positions, keeping as bytes.
#pragma once

#include "attention.h"
#include "attention_probe.h"
#include "bytes.h"

#include <cstdint>
#include <vector>

namespace triattn {

// Adds the queries of later tokens to those of earlier ones.
void append(LayerQueries & to, LayerQueries queries);

// The queries of the marked tokens.
LayerQueries only(const LayerQueries & queries, const std::vector<uint8_t> & marks);

// Keeps the newest `n` tokens' queries.
void keep_newest(LayerQueries & queries, size_t n);

// Drops the queries of positions from `n` on.
void cut_back(QuerySet & queries, int32_t n);

// Turns queries of a context without a Hadamard matrix to other positions, as a context would have them whose attention
// is `readers` (of each layer) and whose matrix is `hadamard` [size, size]: exact, since RoPE only adds to angles.
void turn(LayerQueries & queries, int32_t by, const std::vector<std::vector<AttentionNode>> & readers,
          const std::vector<float> & hadamard, int size);

void save_queries(const LayerQueries & queries, std::vector<uint8_t> & bytes);
LayerQueries load_queries(ByteReader & in, const std::vector<std::vector<AttentionNode>> & readers);

}  // namespace triattn
