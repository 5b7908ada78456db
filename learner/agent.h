// Deep Q-learning with double, dueling, n-step and prioritised replay, on one page.
//
// The network's head gives Q(s, a) for every action (dueling is the network's business). A batch is turned into
// what one update needs:
//   return     R_i = sum_{k<m} gamma^k clip(c r_k)                      m <= n rewards, fewer at an episode's end;
//              c = 1, or of the running statistics (nn/normalization.h)
//   bootstrap  b_i = gamma^m, or 0 at a terminal state, where 0 selects: nothing of the next state is looked at
//   weight     w_i = (N P_i)^-beta / max_j (N P_j)^-beta                 over the whole batch, all shards
// The trainer (nn/backend.h, maths in nn/td.h) then computes
//   target     y = h(R + b h^-1(Q_target(s', argmax_a Q_online(s', a))))   double; argmax over allowed actions
//   loss       mean_i w_i huber(y - Q_online(s, a))
//   priority   |y - Q_online(s, a)| + epsilon                             exponent alpha is the shard's
// Sources: Mnih et al. 2015; van Hasselt et al. 2016; Schaul et al. 2016; Horgan et al. 2018.
// Deviations: weights are normalised by the batch's largest, as Schaul et al.; Ape-X's actors compute first
// priorities with the same function as here (actors/priority_window.h).
#pragma once

#include <span>
#include <vector>

#include "learner/config.h"
#include "nn/backend.h"
#include "nn/normalization.h"
#include "replay/client.h"

namespace qanat::learner {

class DqnAgent {
 public:
  // Throws ConfigError when the environment's observations cannot be normalised as `config` asks.
  DqnAgent(const AgentConfig& config, double priority_epsilon, const wire::EnvironmentSchema& environment);

  // The statistics by which observations and rewards are normalised now.
  [[nodiscard]] const nn::Normalization& normalization() const { return normalization_; }
  // See nn::Normalization::load.
  void load_statistics(std::span<const std::byte> statistics, const std::string& source) {
    normalization_.load(statistics, source);
  }
  // Adds the drawn steps to the statistics: the newest observation of each state, and the discounted return there.
  void add_to_statistics(const replay::SampledBatch& batch);
  // Where observations are normalised: puts the batch's rows, which must lie in columns[0], into what `memory` gives
  // for their bytes, or leaves them in place when it gives nothing.
  void normalize_rows(replay::SampledBatch& batch, const replay::ReplayClient::RowMemory& memory = {}) const;

  // Views into `batch` and into this object, valid until the next call.
  [[nodiscard]] nn::QBatch prepare(const replay::SampledBatch& batch, double beta);

  // From the trainer's |td|: what the shards are sent.
  [[nodiscard]] std::span<const float> priorities(std::span<const float> td_abs);

 private:
  AgentConfig config_;
  float priority_epsilon_;
  std::size_t actions_;
  bool has_action_mask_;
  nn::Normalization normalization_;
  std::vector<std::uint32_t> drawn_;  // [B] rows of the batch
  std::vector<float> returns_;
  std::vector<float> bootstrap_;
  std::vector<float> weights_;
  std::vector<std::uint8_t> next_mask_;
  std::vector<float> priorities_;
};

}  // namespace qanat::learner
