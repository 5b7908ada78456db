#include "learner/agent.h"

#include <algorithm>
#include <cmath>

namespace qanat::learner {

DqnAgent::DqnAgent(const AgentConfig& config, double priority_epsilon, std::int64_t actions, bool has_action_mask)
    : config_(config),
      priority_epsilon_(static_cast<float>(priority_epsilon)),
      actions_(static_cast<std::size_t>(actions)),
      has_action_mask_(has_action_mask) {}

nn::QBatch DqnAgent::prepare(const replay::SampledBatch& batch, double beta) {
  const auto size = batch.size();
  const auto& table = batch.table;
  returns_.resize(size);
  bootstrap_.resize(size);
  weights_.resize(size);
  const double rarest = *std::min_element(batch.probability.begin(), batch.probability.end());
  for (std::size_t i = 0; i < size; ++i) {
    double discount = 1;
    double sum = 0;
    for (std::size_t k = 0; k < table.steps[i]; ++k) {
      double reward = table.rewards[i * table.n_step + k];
      if (config_.reward_clip > 0) reward = std::clamp(reward, -config_.reward_clip, config_.reward_clip);
      sum += discount * reward;
      discount *= config_.gamma;
    }
    returns_[i] = static_cast<float>(sum);
    bootstrap_[i] = table.terminal[i] ? 0.0F : static_cast<float>(discount);
    // N cancels against the largest weight, which is the rarest item's.
    weights_[i] = static_cast<float>(std::pow(rarest / batch.probability[i], beta));
  }

  nn::QBatch out;
  out.size = static_cast<std::int64_t>(size);
  const auto* rows = batch.network_rows();
  out.state = {rows, batch.rows, table.state.data()};
  out.next_state = {rows, batch.rows, table.next_state.data()};
  out.action = table.actions.data();
  out.returns = returns_.data();
  out.bootstrap = bootstrap_.data();
  out.weight = weights_.data();
  if (has_action_mask_) {
    const auto& masks = batch.columns.back();
    next_mask_.resize(size * actions_);
    for (std::size_t i = 0; i < size; ++i) {
      const auto row = table.next_state[i * table.stack + table.stack - 1];
      std::memcpy(&next_mask_[i * actions_], &masks[row * actions_], actions_);
    }
    out.next_mask = next_mask_.data();
  }
  return out;
}

std::span<const float> DqnAgent::priorities(std::span<const float> td_abs) {
  priorities_.resize(td_abs.size());
  std::transform(td_abs.begin(), td_abs.end(), priorities_.begin(), [&](float td) { return td + priority_epsilon_; });
  return priorities_;
}

}  // namespace qanat::learner
