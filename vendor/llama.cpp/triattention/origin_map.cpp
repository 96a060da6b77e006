#include "origin_map.h"

#include <algorithm>

namespace triattn {

OriginMap::OriginMap(size_t n_cells, const std::vector<KvLayer> & layers) {
    for (const KvLayer & layer : layers) {
        origin_.emplace_back(layer.n_head_kv, std::vector<int32_t>(n_cells, -1));
    }
}

void OriginMap::sync(const std::vector<KvCell> & cells) {
    const auto first = seen_.first_new(cells);
    for (auto & layer : origin_) {
        for (auto & head : layer) {
            for (auto cell = first; cell != cells.end(); ++cell) {
                head[cell->slot] = cell->pos;
            }
        }
    }
    seen_.take(cells);
}

void OriginMap::apply(const CompactionPlan & plan) {
    for (size_t l = 0; l < plan.moves.size(); ++l) {
        for (size_t h = 0; h < plan.moves[l].size(); ++h) {
            for (const Move & move : plan.moves[l][h]) {
                origin_[l][h][move.to] = origin_[l][h][move.from];
            }
        }
    }
}

void OriginMap::save(std::vector<uint8_t> & bytes, const std::vector<KvCell> & cells) const {
    const int32_t next_pos = seen_.next_pos();
    put(bytes, &next_pos, sizeof next_pos);
    for (const auto & layer : origin_) {
        for (const auto & head : layer) {
            for (const KvCell & cell : cells) {
                put(bytes, &head[cell.slot], sizeof head[0]);
            }
        }
    }
}

void OriginMap::load(ByteReader & in, const std::vector<KvCell> & cells) {
    int32_t next_pos = 0;
    in.get(&next_pos, sizeof next_pos);
    seen_.set_next_pos(next_pos);
    for (auto & layer : origin_) {
        for (auto & head : layer) {
            for (const KvCell & cell : cells) {
                in.get(&head[cell.slot], sizeof head[0]);
            }
        }
    }
}

void OriginMap::truncate(int32_t n) { seen_.truncate(n); }

std::vector<int32_t> OriginMap::kept(size_t layer, size_t kv_head, const std::vector<KvCell> & cells) const {
    const auto & origin = origin_.at(layer).at(kv_head);
    std::vector<int32_t> result;
    for (const KvCell & cell : cells) {
        result.push_back(origin[cell.slot]);
    }
    std::sort(result.begin(), result.end());
    return result;
}

std::vector<std::vector<std::vector<int32_t>>> OriginMap::evicted(const Kept & kept,
                                                                  const std::vector<KvCell> & cells) const {
    std::vector<std::vector<std::vector<int32_t>>> result;
    for (size_t l = 0; l < kept.size(); ++l) {
        result.emplace_back();
        for (size_t h = 0; h < kept[l].size(); ++h) {
            std::vector<int32_t> positions;
            for (size_t i = 0; i < cells.size(); ++i) {
                if (kept[l][h][i] == 0) {
                    positions.push_back(origin_[l][h][cells[i].slot]);
                }
            }
            std::sort(positions.begin(), positions.end());
            result.back().push_back(std::move(positions));
        }
    }
    return result;
}

}  // namespace triattn
