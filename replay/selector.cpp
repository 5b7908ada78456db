#include "replay/selector.h"

#include <cmath>
#include <limits>
#include <vector>

#include "core/error.h"
#include "replay/sum_tree.h"

namespace qanat::replay {

std::uint32_t LeafScale::leaf(float priority, LeafClamps& clamps) const {
  if (priority == 0) return 0;
  constexpr double largest = std::numeric_limits<std::uint32_t>::max();
  const double raised = alpha_ == 1 ? double{priority} : std::pow(double{priority}, alpha_);
  const double scaled = std::floor(raised * double{1U << fraction_bits} + 0.5);
  if (scaled < 1) {
    ++clamps.low;
    return 1;
  }
  if (scaled > largest) {
    ++clamps.high;
    return std::numeric_limits<std::uint32_t>::max();
  }
  return static_cast<std::uint32_t>(scaled);
}

void stratified_points(std::uint64_t mass, Strata strata, Rng& rng, std::span<std::uint64_t> points) {
  if (points.empty()) return;
  const std::uint64_t count = strata.total == 0 ? points.size() : strata.total;
  const std::uint64_t whole = mass / count;
  const std::uint64_t part = mass % count;
  // floor((k * mass + u) / count) with k * mass = start * count + rest, carried along without large products.
  std::uint64_t k = strata.first;
  std::uint64_t start = k * whole + k * part / count;
  std::uint64_t rest = k * part % count;
  for (std::uint64_t& point : points) {
    point = start + (rest + rng.below(mass)) / count;
    start += whole;
    rest += part;
    if (rest >= count) {
      rest -= count;
      ++start;
    }
    if (++k == count) k = start = rest = 0;
  }
}

namespace {

// Both rules are a sum tree; they differ in what a priority weighs.
class TreeSelector : public Selector {
 public:
  explicit TreeSelector(std::uint64_t slots) : tree_(slots) {}

  void set(std::span<const std::uint32_t> slots, std::span<const float> priorities) override {
    weights_.resize(slots.size());
    weigh(priorities, weights_);
    tree_.set(slots, weights_);
  }
  void remove(std::span<const std::uint32_t> slots) override {
    weights_.assign(slots.size(), 0);
    tree_.set(slots, weights_);
  }
  std::uint64_t mass() const override { return tree_.total(); }
  std::uint32_t leaf(std::uint32_t slot) const override { return tree_.leaf(slot); }
  void draw(Rng& rng, Strata strata, std::span<std::uint32_t> slots) override {
    points_.resize(slots.size());
    stratified_points(tree_.total(), strata, rng, points_);
    tree_.find(points_, slots);
  }
  LeafClamps clamps() const override { return clamps_; }
  std::uint64_t bytes() const override { return tree_.bytes(); }

 protected:
  LeafClamps clamps_;

 private:
  virtual void weigh(std::span<const float> priorities, std::span<std::uint32_t> weights) = 0;

  SumTree tree_;
  std::vector<std::uint32_t> weights_;
  std::vector<std::uint64_t> points_;
};

class PrioritisedSelector final : public TreeSelector {
 public:
  PrioritisedSelector(double alpha, std::uint64_t slots) : TreeSelector(slots), scale_(alpha) {}

 private:
  void weigh(std::span<const float> priorities, std::span<std::uint32_t> weights) override {
    for (std::size_t i = 0; i < priorities.size(); ++i) weights[i] = scale_.leaf(priorities[i], clamps_);
  }

  LeafScale scale_;
};

class UniformSelector final : public TreeSelector {
 public:
  using TreeSelector::TreeSelector;

 private:
  void weigh(std::span<const float>, std::span<std::uint32_t> weights) override {
    for (std::uint32_t& weight : weights) weight = 1;
  }
};

}  // namespace

std::unique_ptr<Selector> make_selector(std::string_view name, double alpha, std::uint64_t slots) {
  if (name == "prioritised") {
    if (!(alpha >= 0) || !std::isfinite(alpha)) throw ConfigError(text("replay: alpha is ", alpha, ", wanted >= 0"));
    return std::make_unique<PrioritisedSelector>(alpha, slots);
  }
  if (name == "uniform") return std::make_unique<UniformSelector>(slots);
  throw ConfigError(text("replay: no selector is called '", name, "'; there are prioritised and uniform"));
}

std::uint64_t predicted_selector_bytes(std::uint64_t slots) { return SumTree::predicted_bytes(slots); }

}  // namespace qanat::replay
