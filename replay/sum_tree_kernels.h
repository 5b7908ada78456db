// The inner loops of SumTree, compiled once per instruction set and chosen at run time. Only sum_tree.cpp includes
// this.
//
// Pure functions over the caller's arrays. `levels[0]` is the level above the leaves, whose children are groups of 8
// leaves; the last is the root's single node.
#pragma once

#include <cstddef>
#include <cstdint>

#include "replay/sum_tree.h"

namespace qanat::replay::kernels {

// Writes the weights and carries the differences up. Returns what the total grew by, modulo 2^64.
std::uint64_t set_leaves(std::uint32_t* leaves, const SumTreeLevel* levels, std::size_t level_count,
                         const std::uint32_t* slots, const std::uint32_t* weights, std::size_t count);

void find_leaves(const std::uint32_t* leaves, const SumTreeLevel* levels, std::size_t level_count,
                 const std::uint64_t* points, std::uint32_t* slots, std::size_t count);

const char* target_name();

}  // namespace qanat::replay::kernels
