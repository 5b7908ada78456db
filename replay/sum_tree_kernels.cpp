#include "replay/sum_tree_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "replay/sum_tree_kernels.cpp"
#include <hwy/foreach_target.h>  // compiles this file once per instruction set
// The order matters: highway.h expects foreach_target.h before it.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace qanat::replay::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// A node is 8 u64: whole vectors need 512 bits. Elsewhere plain loops, which compilers make branch-free.
#define QANAT_WIDE_NODES (HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86)

// How many queries walk down side by side, so that their cache misses overlap.
constexpr std::size_t block = 32;
// How far ahead of an update its cache lines are asked for.
constexpr std::size_t ahead = 16;

#if QANAT_WIDE_NODES
using Node = hn::FixedTag<std::uint64_t, 8>;

HWY_INLINE void add_after(std::uint64_t* node, std::uint32_t child, std::uint64_t delta) {
  const Node d;
  const auto bits = static_cast<std::uint8_t>(0xfeU << child);
  const auto later = hn::LoadMaskBits(d, &bits);
  const auto sums = hn::Load(d, node);
  hn::Store(hn::Add(sums, hn::IfThenElseZero(later, hn::Set(d, delta))), d, node);
}

// The last child whose earlier sum is at most `point`.
HWY_INLINE std::uint32_t child_at(const std::uint64_t* node, std::uint64_t point) {
  const Node d;
  return 7U - static_cast<std::uint32_t>(hn::CountTrue(d, hn::Gt(hn::Load(d, node), hn::Set(d, point))));
}

// The leaf of a group of 8 in which `point` falls.
HWY_INLINE std::uint32_t leaf_at(const std::uint32_t* group, std::uint64_t point) {
  const Node d;
  const hn::Rebind<std::uint32_t, Node> narrow;
  alignas(64) static constexpr std::uint64_t back_one[8] = {0, 0, 1, 2, 3, 4, 5, 6};
  alignas(64) static constexpr std::uint64_t back_two[8] = {0, 0, 0, 1, 2, 3, 4, 5};
  alignas(64) static constexpr std::uint64_t back_four[8] = {0, 0, 0, 0, 0, 1, 2, 3};
  const auto shifted = [&](auto v, const std::uint64_t* index, std::uint8_t lanes) {
    return hn::IfThenElseZero(hn::LoadMaskBits(d, &lanes), hn::TableLookupLanes(v, hn::SetTableIndices(d, index)));
  };
  auto up_to = hn::PromoteTo(d, hn::Load(narrow, group));  // becomes the sums up to and with each leaf
  up_to = hn::Add(up_to, shifted(up_to, back_one, 0xfe));
  up_to = hn::Add(up_to, shifted(up_to, back_two, 0xfc));
  up_to = hn::Add(up_to, shifted(up_to, back_four, 0xf0));
  return 8U - static_cast<std::uint32_t>(hn::CountTrue(d, hn::Gt(up_to, hn::Set(d, point))));
}
#else
inline void add_after(std::uint64_t* node, std::uint32_t child, std::uint64_t delta) {
  for (std::uint32_t j = 1; j < 8; ++j) node[j] += j > child ? delta : 0;
}

inline std::uint32_t child_at(const std::uint64_t* node, std::uint64_t point) {
  std::uint32_t child = 0;
  for (std::uint32_t j = 1; j < 8; ++j) child += node[j] <= point;
  return child;
}

inline std::uint32_t leaf_at(const std::uint32_t* group, std::uint64_t point) {
  std::uint32_t child = 0;
  std::uint64_t up_to = 0;
  for (std::uint32_t j = 0; j < 7; ++j) {
    up_to += group[j];
    child += up_to <= point;
  }
  return child;
}
#endif

std::uint64_t set_all(std::uint32_t* leaves, const SumTreeLevel* levels, std::size_t level_count,
                      const std::uint32_t* slots, const std::uint32_t* weights, std::size_t count) {
  std::uint64_t growth = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (i + ahead < count) {
      const std::size_t next = slots[i + ahead];
      hwy::Prefetch(leaves + next);
      hwy::Prefetch(levels[0].before + next / 64 * 8);
    }
    std::size_t index = slots[i];
    const std::uint64_t delta = std::uint64_t{weights[i]} - leaves[index];
    leaves[index] = weights[i];
    growth += delta;
    index /= 8;
    for (std::size_t level = 0; level < level_count; ++level, index /= 8) {
      add_after(levels[level].before + index / 8 * 8, static_cast<std::uint32_t>(index % 8), delta);
    }
  }
  return growth;
}

void find_all(const std::uint32_t* leaves, const SumTreeLevel* levels, std::size_t level_count,
              const std::uint64_t* points, std::uint32_t* slots, std::size_t count) {
  std::uint64_t rest[block];
  std::uint32_t at[block];
  for (std::size_t begin = 0; begin < count; begin += block) {
    const std::size_t size = HWY_MIN(block, count - begin);
    for (std::size_t i = 0; i < size; ++i) {
      rest[i] = points[begin + i];
      at[i] = 0;
    }
    for (std::size_t level = level_count; level-- > 0;) {
      for (std::size_t i = 0; i < size; ++i) {
        const std::uint64_t* node = levels[level].before + std::size_t{at[i]} * 8;
        const std::uint32_t child = child_at(node, rest[i]);
        rest[i] -= node[child];
        at[i] = at[i] * 8 + child;
        if (level > 0) {
          hwy::Prefetch(levels[level - 1].before + std::size_t{at[i]} * 8);
        } else {
          hwy::Prefetch(leaves + std::size_t{at[i]} * 8);
        }
      }
    }
    for (std::size_t i = 0; i < size; ++i) {
      slots[begin + i] = at[i] * 8 + leaf_at(leaves + std::size_t{at[i]} * 8, rest[i]);
    }
  }
}

const char* name() { return hwy::TargetName(HWY_TARGET); }

}  // namespace qanat::replay::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qanat::replay::kernels {

HWY_EXPORT(set_all);
HWY_EXPORT(find_all);
HWY_EXPORT(name);

std::uint64_t set_leaves(std::uint32_t* leaves, const SumTreeLevel* levels, std::size_t level_count,
                         const std::uint32_t* slots, const std::uint32_t* weights, std::size_t count) {
  return HWY_DYNAMIC_DISPATCH(set_all)(leaves, levels, level_count, slots, weights, count);
}

void find_leaves(const std::uint32_t* leaves, const SumTreeLevel* levels, std::size_t level_count,
                 const std::uint64_t* points, std::uint32_t* slots, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(find_all)(leaves, levels, level_count, points, slots, count);
}

const char* target_name() { return HWY_DYNAMIC_DISPATCH(name)(); }

}  // namespace qanat::replay::kernels
#endif
