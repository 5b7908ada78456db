#include "envs/games/memory_chain.h"

#include <limits>
#include <stdexcept>

#include "envs/games/games.h"

namespace qanat::envs {

MemoryChain::MemoryChain(const env::Options& options)
    : length_(static_cast<std::int32_t>(options.integer("memory_length", 10, 1, 1'000'000))),
      bits_(static_cast<int>(options.integer("num_bits", 1, 1, most_bits))) {}

env::Spec MemoryChain::spec() const {
  return {.observations = {{.name = "time_query_bits",
                            .dtype = env::DType::f32,
                            .shape = {2 + bits_},
                            .low = -1,
                            .high = bits_ > 1 ? bits_ - 1.0 : 1.0}},
          .action = env::Action::discrete(2)};
}

void MemoryChain::reset(env::Rng& rng) {
  const std::uint64_t used = std::numeric_limits<std::uint64_t>::max() >> (most_bits - bits_);
  state_ = {};
  state_.bits = rng.next() & used;
  state_.query = static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(bits_)));
}

env::Outcome MemoryChain::step(std::int32_t action) {
  if (state_.t == length_) return {.reward = 0, .terminated = true};
  if (++state_.t < length_) return {};
  return {.reward = (action == 1) == bit(state_.query) ? 1.0f : -1.0f, .terminated = true};
}

void MemoryChain::observe(const env::Row& row) const {
  const auto out = row.at<float>();
  out[0] = 1 - static_cast<float>(state_.t) / static_cast<float>(length_);
  out[1] = state_.t == length_ - 1 ? static_cast<float>(state_.query) : 0;
  for (int i = 0; i < bits_; ++i) {
    out[static_cast<std::size_t>(2 + i)] = state_.t > 0 ? 0.0f : bit(i) ? 1.0f : -1.0f;
  }
}

void MemoryChain::set_state(const State& state) {
  const bool no_other_bits = bits_ == most_bits || state.bits >> bits_ == 0;
  if (!no_other_bits || state.t < 0 || state.t >= length_ || state.query < 0 || state.query >= bits_) {
    throw std::invalid_argument("memory_chain: a state out of range");
  }
  state_ = state;
}

const qanat_env_table& memory_chain_table() { return env::table_of<MemoryChain>; }

}  // namespace qanat::envs
