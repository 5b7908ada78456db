#include "learner/agent.h"

#include <algorithm>
#include <cmath>

namespace qanat::learner {

DqnAgent::DqnAgent(const AgentConfig& config, double priority_epsilon, const wire::EnvironmentSchema& environment)
    : config_(config),
      priority_epsilon_(static_cast<float>(priority_epsilon)),
      actions_(static_cast<std::size_t>(environment.actions)),
      has_action_mask_(environment.has_action_mask),
      normalization_(config.normalization(), environment.observations.front().tensor) {}

void DqnAgent::add_to_statistics(const replay::SampledBatch& batch) {
  if (!normalization_.observations() && !normalization_.rewards()) return;
  const auto& table = batch.table;
  drawn_.resize(batch.size());
  for (std::size_t i = 0; i < drawn_.size(); ++i) drawn_[i] = table.state[i * table.stack + table.stack - 1];
  if (normalization_.observations()) normalization_.add_observations(batch.columns[0].data(), drawn_);
  if (normalization_.rewards()) normalization_.add_returns(batch.columns.back().data(), drawn_);
}

void DqnAgent::normalize_rows(replay::SampledBatch& batch, const replay::ReplayClient::RowMemory& memory) const {
  if (!normalization_.observations()) return;
  auto& rows = batch.columns[0];
  const auto place = memory ? memory(rows.size()) : std::span<std::byte>();
  normalization_.normalize(rows, place.empty() ? rows.data() : place.data());
  batch.elsewhere = place.empty() ? nullptr : place.data();
}

nn::QBatch DqnAgent::prepare(const replay::SampledBatch& batch, double beta) {
  const auto size = batch.size();
  const auto& table = batch.table;
  returns_.resize(size);
  bootstrap_.resize(size);
  weights_.resize(size);
  const auto counted = normalization_.reward_scale(config_.reward_clip);
  const double rarest = *std::min_element(batch.probability.begin(), batch.probability.end());
  for (std::size_t i = 0; i < size; ++i) {
    double discount = 1;
    double sum = 0;
    for (std::size_t k = 0; k < table.steps[i]; ++k) {
      sum += discount * counted(static_cast<double>(table.rewards[i * table.n_step + k]));
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
    // The extras are the mask and, last, the discounted return where it is kept.
    const auto& masks = batch.columns[batch.columns.size() - (normalization_.rewards() ? 2 : 1)];
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
