#include "nn/normalization.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>
#include <string_view>

#include "core/error.h"

namespace qanat::nn {
namespace {

constexpr double epsilon = 1e-8;

float f32_at(const std::byte* row, std::size_t element) {
  float value;
  std::memcpy(&value, row + element * sizeof value, sizeof value);
  return value;
}

bool all_finite(const std::byte* row, std::size_t elements) {
  for (std::size_t e = 0; e < elements; ++e) {
    if (!std::isfinite(f32_at(row, e))) return false;
  }
  return true;
}

double factor_of(double variance) { return 1 / std::sqrt(variance + epsilon); }

void check_presence(const std::string& source, std::string_view what, std::string_view setting, bool seen,
                    bool wanted) {
  if (seen == wanted) return;
  if (wanted) {
    throw ConfigError(
        text(source, ": the statistics of normalised ", what, " are missing, wanted because ", setting, " is true"));
  }
  throw ConfigError(text(source, ": it was trained on normalised ", what, ", but ", setting, " is false"));
}

}  // namespace

// Two passes over the rows, then one merge: no digits are lost where a mean is large beside its deviation.
void RunningMoments::add(const std::byte* rows, std::span<const std::uint32_t> which) {
  const auto width = elements() * sizeof(float);
  RunningMoments added(elements());
  std::vector<const std::byte*> finite;
  finite.reserve(which.size());
  for (const auto row : which) {
    if (all_finite(rows + row * width, elements())) finite.push_back(rows + row * width);
  }
  if (finite.empty()) return;
  added.count_ = finite.size();
  for (const auto* row : finite) {
    for (std::size_t e = 0; e < elements(); ++e) added.mean_[e] += double{f32_at(row, e)};
  }
  for (auto& mean : added.mean_) mean /= static_cast<double>(added.count_);
  for (const auto* row : finite) {
    for (std::size_t e = 0; e < elements(); ++e) {
      const double distance = double{f32_at(row, e)} - added.mean_[e];
      added.squares_[e] += distance * distance;
    }
  }
  merge(added);
}

void RunningMoments::merge(const RunningMoments& other) {
  assert(other.elements() == elements());
  if (other.count_ == 0) return;
  const auto count = static_cast<double>(count_);
  const auto others = static_cast<double>(other.count_);
  for (std::size_t e = 0; e < elements(); ++e) {
    const double delta = other.mean_[e] - mean_[e];
    squares_[e] += other.squares_[e] + delta * delta * count * others / (count + others);
    mean_[e] += delta * others / (count + others);
  }
  count_ += other.count_;
}

void RunningMoments::save(ByteWriter& out) const {
  out.put(count_);
  out.put_vector(mean_);
  out.put_vector(squares_);
}

void RunningMoments::load(ByteReader& in) {
  count_ = in.get<std::uint64_t>("count");
  in.get_vector_into<double>("means", mean_);
  in.get_vector_into<double>("squared distances", squares_);
  for (std::size_t e = 0; e < elements(); ++e) {
    if (!std::isfinite(mean_[e]) || !std::isfinite(squares_[e]) || squares_[e] < 0) {
      in.fail("moments", text("element ", e, " has mean ", mean_[e], " and squared distances ", squares_[e],
                              ", wanted finite numbers, the second not negative"));
    }
  }
}

Normalization::Normalization(const NormalizationOptions& options, const TensorSpec& input)
    : options_(options), observations_(options.observations ? input.elements() : 0), returns_(1) {
  if (options.observations && input.dtype != DType::f32) {
    throw ConfigError(text("agent.normalize_observations is true and the network reads ", input.describe(),
                           ", wanted f32 observations; u8 ones are scaled by network.input_scale"));
  }
  refresh();
}

void Normalization::add_observations(const std::byte* rows, std::span<const std::uint32_t> which) {
  observations_.add(rows, which);
  refresh();
}

void Normalization::refresh() {
  factor_.resize(observations_.elements());
  for (std::size_t e = 0; e < factor_.size(); ++e) factor_[e] = factor_of(observations_.variance(e));
}

void Normalization::normalize(std::span<const std::byte> rows, std::byte* out) const {
  const double clip = options_.clip > 0 ? options_.clip : std::numeric_limits<double>::infinity();
  const auto elements = factor_.size();
  const auto width = elements * sizeof(float);
  for (std::size_t at = 0; at < rows.size(); at += width) {
    for (std::size_t e = 0; e < elements; ++e) {
      const float raw = f32_at(rows.data() + at, e);
      const double scaled = (double{raw} - observations_.mean(e)) * factor_[e];
      // raw - raw is 0, or NaN where raw is not finite.
      const auto value = static_cast<float>(std::clamp(scaled, -clip, clip)) + (raw - raw);
      std::memcpy(out + at + e * sizeof value, &value, sizeof value);
    }
  }
}

RewardScale Normalization::reward_scale(double reward_clip) const {
  if (!options_.rewards) return {1, reward_clip};
  return {factor_of(returns_.variance(0)), options_.clip};
}

std::vector<std::byte> Normalization::save() const {
  if (!options_.observations && !options_.rewards) return {};
  ByteWriter out;
  out.put(options_.observations);
  out.put(options_.rewards);
  if (options_.observations) observations_.save(out);
  if (options_.rewards) returns_.save(out);
  return out.take();
}

void Normalization::load(std::span<const std::byte> statistics, const std::string& source) {
  ByteReader in(statistics, source);
  const bool any = !statistics.empty();
  const bool has_observations = any && in.get<bool>("whether of observations");
  const bool has_rewards = any && in.get<bool>("whether of rewards");
  check_presence(source, "observations", "agent.normalize_observations", has_observations, options_.observations);
  check_presence(source, "rewards", "agent.normalize_rewards", has_rewards, options_.rewards);
  auto observations = observations_;
  auto returns = returns_;
  if (has_observations) observations.load(in);
  if (has_rewards) returns.load(in);
  in.expect_end();
  observations_ = std::move(observations);
  returns_ = std::move(returns);
  refresh();
}

}  // namespace qanat::nn
