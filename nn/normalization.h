// Running normalisation of observations and rewards: statistics that move with what is trained on.
//
//   observation  x' = clip((x - mean) / sqrt(variance + 1e-8), +-clip)   for each element of one stored row
//   reward       r' = clip(r / sqrt(variance(G) + 1e-8), +-clip)         no mean is subtracted: signs stay
//   with         G_t = r_t + gamma G_{t-1}, 0 before an episode's first step: the discounted return so far
//
// Rows are stored raw and normalised where they enter a network, so old rows follow the statistics of today. A stack
// is a list of whole rows (replay/stack.h; where an episode is too young its first row is repeated), so an element has
// the same mean and variance at every place of a stack, and padding needs no rule of its own. Actors and the learner
// call the same function with the same doubles: their inputs are equal bit for bit.
//
// The statistics are the learner's (learner/agent.h adds to them), over the steps that it draws: each drawn step counts
// once each time, over the whole run, without forgetting. They are therefore those of the network's own training data:
// with a prioritised selector, steps of high priority count more than the actors' fresh ones would; with a uniform one
// there is no such bias, and both trail the present policy by the age of the replay. For rewards this moves one scale
// for all of them, never their order. An episode's last observation is never drawn and not counted.
//
// Sources: Welford, 1962; Chan, Golub & LeVeque, 1979; the reward's scale: Engstrom et al., "Implementation Matters in
// Deep Policy Gradients", 2020. Same formulas and constants as Stable-Baselines3's VecNormalize and Gymnasium's
// NormalizeObservation and NormalizeReward, where the acting side gathers the statistics; Gymnasium does not clip, and
// it also multiplies G by 0 in a terminal step.
// Not thread safe: one owner each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/tensor.h"

namespace qanat::nn {

struct NormalizationOptions {
  bool observations = false;
  bool rewards = false;
  double clip = 10;  // of what was normalised; 0: off
};

// Mean and variance of each element of rows of f32, in double. Rows with a number that is not finite are left out.
class RunningMoments {
 public:
  explicit RunningMoments(std::size_t elements) : mean_(elements), squares_(elements) {}

  // `rows`: [any, elements] f32, of any alignment; those numbered by `which` are added, as often as they are named.
  void add(const std::byte* rows, std::span<const std::uint32_t> which);
  // As if everything added to `other` had been added here. Precondition: as many elements.
  void merge(const RunningMoments& other);

  [[nodiscard]] std::size_t elements() const { return mean_.size(); }
  [[nodiscard]] std::uint64_t count() const { return count_; }
  // 0 before the first row.
  [[nodiscard]] double mean(std::size_t element) const { return mean_[element]; }
  // Of what was added (divided by count); 1 before the first row, so that nothing is scaled yet.
  [[nodiscard]] double variance(std::size_t element) const {
    return count_ > 0 ? squares_[element] / static_cast<double>(count_) : 1.0;
  }

  void save(ByteWriter& out) const;
  // Throws InputError when the bytes are of another number of elements or cannot be moments.
  void load(ByteReader& in);

 private:
  std::uint64_t count_ = 0;
  std::vector<double> mean_;
  std::vector<double> squares_;  // sums of squared distances to the mean
};

// What a target counts of a raw reward. The learner's returns and the actors' first priorities both come from here.
struct RewardScale {
  double factor = 1;
  double clip = 0;  // 0: off

  [[nodiscard]] double operator()(double reward) const {
    reward *= factor;
    if (clip <= 0) return reward;
    return reward < -clip ? -clip : reward > clip ? clip : reward;  // NaN stays
  }
};

class Normalization {
 public:
  // Nothing is normalised.
  Normalization() : Normalization({}, {}) {}
  // `input`: one stored row of the column that the network reads. Throws ConfigError when its observations shall be
  // normalised and are not f32.
  Normalization(const NormalizationOptions& options, const TensorSpec& input);

  // What is normalised.
  [[nodiscard]] bool observations() const { return options_.observations; }
  [[nodiscard]] bool rewards() const { return options_.rewards; }

  // Preconditions: the one is normalised. `returns`: G of each row, f32. Otherwise as RunningMoments::add.
  void add_observations(const std::byte* rows, std::span<const std::uint32_t> which);
  void add_returns(const std::byte* returns, std::span<const std::uint32_t> which) { returns_.add(returns, which); }

  [[nodiscard]] const RunningMoments& observation_moments() const { return observations_; }
  [[nodiscard]] const RunningMoments& return_moments() const { return returns_; }

  // Normalises whole rows into `out`, which may be their own place. What is not finite becomes NaN: it must not pass as
  // a clipped number. Precondition: observations().
  void normalize(std::span<const std::byte> rows, std::byte* out) const;
  // `reward_clip`: the bound of rewards that are not normalised; 0: none.
  [[nodiscard]] RewardScale reward_scale(double reward_clip) const;

  // The statistics: empty when nothing is normalised.
  [[nodiscard]] std::vector<std::byte> save() const;
  // From save(). Throws, with nothing changed: ConfigError naming the setting when they lack what is normalised here,
  // or hold what is not; InputError when they are damaged or of other observations. `source` names them in errors.
  void load(std::span<const std::byte> statistics, const std::string& source);

 private:
  void refresh();

  NormalizationOptions options_;
  RunningMoments observations_;  // of no element when observations are not normalised
  RunningMoments returns_;
  std::vector<double> factor_;  // [elements] 1 / sqrt(variance + epsilon)
};

// All that a network needs to act: its parameters in canonical layout, and the statistics of its inputs as
// Normalization saves them, empty when nothing is normalised.
struct WeightsView {
  std::span<const float> parameters;
  std::span<const std::byte> statistics;
};
struct Weights {
  std::vector<float> parameters;
  std::vector<std::byte> statistics;

  [[nodiscard]] WeightsView view() const { return {parameters, statistics}; }
};

}  // namespace qanat::nn
