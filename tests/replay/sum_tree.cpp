#include "replay/sum_tree.h"

#include <hwy/targets.h>

#include <limits>
#include <numeric>
#include <vector>

#include "core/rng.h"
#include "replay/selector.h"
#include "tests/replay/statistics.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::replay;

namespace {

constexpr std::uint32_t largest = std::numeric_limits<std::uint32_t>::max();

// Runs `body` with each instruction set that this machine has, the plainest too.
template <class Body>
void on_every_target(Body&& body) {
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    INFO("target " << SumTree::target());
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

std::uint32_t slot_by_scan(const std::vector<std::uint32_t>& leaves, std::uint64_t point) {
  for (std::uint32_t slot = 0;; ++slot) {
    if (point < leaves.at(slot)) return slot;
    point -= leaves[slot];
  }
}

// A random weight: often 0, sometimes tiny, sometimes the largest there is.
std::uint32_t random_weight(Rng& rng) {
  switch (rng.below(5)) {
    case 0:
      return 0;
    case 1:
      return 1;
    case 2:
      return largest;
    default:
      return static_cast<std::uint32_t>(rng.next());
  }
}

}  // namespace

TEST_CASE("sum tree: every point of a small tree finds the slot that a scan finds") {
  on_every_target([] {
    Rng rng(1);
    for (const std::uint64_t size : {1, 2, 7, 8, 9, 63, 64, 65, 100, 511, 512, 513, 1009}) {
      SumTree tree(size);
      std::vector<std::uint32_t> leaves(size);
      for (std::uint32_t slot = 0; slot < size; ++slot) {
        leaves[slot] = static_cast<std::uint32_t>(rng.below(4));
        tree.set(slot, leaves[slot]);
      }
      leaves[size - 1] = 2;
      tree.set(static_cast<std::uint32_t>(size - 1), 2);
      REQUIRE(tree.total() == std::accumulate(leaves.begin(), leaves.end(), std::uint64_t{0}));
      std::vector<std::uint64_t> points(tree.total());
      std::iota(points.begin(), points.end(), 0);
      std::vector<std::uint32_t> found(points.size());
      tree.find(points, found);
      bool all_equal = true;
      for (const std::uint64_t point : points) all_equal &= found[point] == slot_by_scan(leaves, point);
      CHECK(all_equal);
    }
  });
}

TEST_CASE("sum tree: a million random updates leave exact sums, whatever came and went") {
  on_every_target([] {
    Rng rng(2);
    const std::uint32_t size = 5000;
    SumTree tree(size);
    std::vector<std::uint32_t> leaves(size);
    for (int batch = 0; batch < 2000; ++batch) {
      std::vector<std::uint32_t> slots(500);
      std::vector<std::uint32_t> weights(500);
      for (std::size_t i = 0; i < slots.size(); ++i) {
        slots[i] = static_cast<std::uint32_t>(rng.below(size));  // repeats within a batch happen: the later stays
        weights[i] = random_weight(rng);
        leaves[slots[i]] = weights[i];
      }
      tree.set(slots, weights);
    }
    CHECK(tree.total() == std::accumulate(leaves.begin(), leaves.end(), std::uint64_t{0}));
    // First and last point of every leaf: any inner sum that is off by one shows.
    std::uint64_t before = 0;
    bool all_found = true;
    for (std::uint32_t slot = 0; slot < size; ++slot) {
      all_found &= tree.leaf(slot) == leaves[slot];
      if (leaves[slot] == 0) continue;
      const std::uint64_t points[2] = {before, before + leaves[slot] - 1};
      std::uint32_t found[2] = {};
      tree.find(points, found);
      all_found &= found[0] == slot && found[1] == slot;
      before += leaves[slot];
    }
    CHECK(all_found);
    for (std::uint32_t slot = 0; slot < size; ++slot) tree.set(slot, 0);
    CHECK(tree.total() == 0);
  });
}

TEST_CASE("sum tree: full of the largest leaves nothing overflows") {
  const std::uint32_t size = 1 << 16;
  SumTree tree(size);
  std::vector<std::uint32_t> slots(size);
  std::iota(slots.begin(), slots.end(), 0);
  tree.set(slots, std::vector<std::uint32_t>(size, largest));
  CHECK(tree.total() == std::uint64_t{size} * largest);
  const std::uint64_t points[2] = {0, tree.total() - 1};
  std::uint32_t found[2] = {};
  tree.find(points, found);
  CHECK(found[0] == 0);
  CHECK(found[1] == size - 1);
}

TEST_CASE("sum tree: 4 million items are drawn in proportion; 24-bit uniforms and count for mass are found out (C12)") {
  // Even slots weigh 23, odd ones 1001: 2^31 in all, so that a 24-bit uniform reaches every 128th unit only.
  const std::uint32_t size = 1 << 22;
  const auto weight = [](std::uint64_t slot) { return slot % 2 == 0 ? 23U : 1001U; };
  SumTree tree(size);
  std::vector<std::uint32_t> slots(size);
  std::vector<std::uint32_t> weights(size);
  for (std::uint32_t slot = 0; slot < size; ++slot) {
    slots[slot] = slot;
    weights[slot] = weight(slot);
  }
  tree.set(slots, weights);
  REQUIRE(tree.total() == std::uint64_t{1} << 31);
  const auto statistic = [&](auto&& point) {
    std::vector<std::uint64_t> points(1'000'000);
    for (std::uint64_t& value : points) value = point();
    std::vector<std::uint32_t> found(points.size());
    tree.find(points, found);
    std::vector<std::uint64_t> counts(128);
    std::vector<double> probabilities(counts.size());
    for (const std::uint32_t slot : found) ++counts[slot % 128];
    for (std::size_t i = 0; i < counts.size(); ++i) probabilities[i] = weight(i) / (64 * 1024.0);
    return test::chi_square(counts, probabilities);
  };
  Rng rng(3);
  CHECK(statistic([&] { return rng.below(tree.total()); }) < test::chi_square_limit(127));
  CHECK(statistic([&] { return (rng.next() >> 40) << 7; }) > test::chi_square_limit(127));
  // By count: a random slot's first unit.
  CHECK(statistic([&] { return rng.below(size / 2) * 1024 + 23 * rng.below(2); }) > test::chi_square_limit(127));
}

TEST_CASE("strata: each point lies in its stratum, and over all strata every unit of mass is equally likely") {
  Rng rng(4);
  // Masses that the count does not divide, smaller than the count, and near the top of the range.
  for (const std::uint64_t mass :
       {std::uint64_t{1}, std::uint64_t{2}, std::uint64_t{7}, std::uint64_t{1000}, (std::uint64_t{1} << 62) + 12'345}) {
    for (const std::uint64_t count : {1, 3, 16, 513}) {
      std::vector<std::uint64_t> points(count);
      stratified_points(mass, {}, rng, points);
      for (std::uint64_t i = 0; i < count; ++i) {
        const auto low = static_cast<std::uint64_t>(static_cast<unsigned __int128>(mass) * i / count);
        const auto high = static_cast<std::uint64_t>((static_cast<unsigned __int128>(mass) * (i + 1) - 1) / count);
        REQUIRE(points[i] >= low);
        REQUIRE(points[i] <= high);
      }
    }
  }
  std::vector<std::uint64_t> counts(7);
  std::vector<std::uint64_t> points(3);
  for (int i = 0; i < 200'000; ++i) {
    stratified_points(7, {}, rng, points);
    for (const std::uint64_t point : points) ++counts[point];
  }
  const std::vector<double> even(7, 1 / 7.0);
  CHECK(test::chi_square(counts, even) < test::chi_square_limit(6));
}

TEST_CASE("leaf scale: fixed point with known rounding, clamps that are counted, and 0 only for 0 (C13)") {
  LeafClamps clamps;
  const LeafScale linear(1);
  CHECK(linear.leaf(0, clamps) == 0);
  CHECK(linear.leaf(1, clamps) == 1U << 20);
  CHECK(linear.leaf(0.5F, clamps) == 1U << 19);
  CHECK(linear.leaf(0x1.8p-20F, clamps) == 2);  // 1.5 rounds up
  CHECK(clamps.low == 0);
  CHECK(linear.leaf(1e-15F, clamps) == 1);
  CHECK(clamps.low == 1);
  CHECK(clamps.high == 0);
  CHECK(linear.leaf(4096.0F, clamps) == largest);
  CHECK(linear.leaf(std::numeric_limits<float>::max(), clamps) == largest);
  CHECK(clamps.high == 2);
  const LeafScale flat(0);
  CHECK(flat.leaf(0, clamps) == 0);
  CHECK(flat.leaf(123, clamps) == 1U << 20);
  const LeafScale root(0.5);
  CHECK(root.leaf(4, clamps) == 1U << 21);
}
