#include "actors/priority_window.h"

#include <algorithm>
#include <cmath>

#include "nn/td.h"

namespace qanat::actors {

PriorityWindows::PriorityWindows(const AgentView& agent, std::size_t slots)
    : agent_(agent),
      reward_scale_{1, agent.reward_clip},
      n_(static_cast<std::size_t>(agent.n_step)),
      discounts_(n_ + 1, 1.0),
      ring_(slots * n_),
      next_(slots, 0),
      open_(slots, 0) {
  for (std::size_t k = 1; k <= n_; ++k) discounts_[k] = discounts_[k - 1] * agent.gamma;
}

const PriorityWindows::Step& PriorityWindows::back(std::size_t slot, std::size_t steps) const {
  return ring_[slot * n_ + (next_[slot] + n_ - steps) % n_];
}

float PriorityWindows::price(std::size_t slot, std::size_t steps, bool terminal, float next_q) const {
  double sum = 0;
  for (std::size_t k = 0; k < steps; ++k) {
    sum += discounts_[k] * reward_scale_(back(slot, steps - k).reward);
  }
  const float bootstrap = terminal ? 0.0F : static_cast<float>(discounts_[steps]);
  const float target = nn::td_target(static_cast<float>(sum), bootstrap, next_q, agent_.td);
  return std::abs(nn::td_terms(back(slot, steps).taken_q, target, agent_.td).td) +
         static_cast<float>(agent_.priority_epsilon);
}

std::optional<PricedItem> PriorityWindows::step(std::size_t slot, std::uint64_t row, float best_q, float taken_q,
                                                float reward) {
  std::optional<PricedItem> completed;
  if (open_[slot] == n_) {
    const float priority = price(slot, n_, false, best_q);
    if (std::isfinite(priority)) completed = PricedItem{row - n_, priority};
  }
  ring_[slot * n_ + next_[slot]] = {taken_q, double{reward}};
  next_[slot] = (next_[slot] + 1) % n_;
  open_[slot] = std::min(open_[slot] + 1, n_);
  return completed;
}

void PriorityWindows::end(std::size_t slot, std::uint64_t last_row, bool terminated, float final_q,
                          std::vector<PricedItem>& out) {
  for (std::size_t steps = open_[slot]; steps > 0; --steps) {
    const float priority = price(slot, steps, terminated, final_q);
    if (std::isfinite(priority)) out.push_back({last_row - steps, priority});
  }
  open_[slot] = 0;
}

void PriorityWindows::save(ByteWriter& out) const {
  for (std::size_t slot = 0; slot < open_.size(); ++slot) {
    out.put<std::uint64_t>(open_[slot]);
    for (std::size_t steps = open_[slot]; steps > 0; --steps) {
      out.put(back(slot, steps).taken_q);
      out.put(back(slot, steps).reward);
    }
  }
}

void PriorityWindows::load(ByteReader& in) {
  for (std::size_t slot = 0; slot < open_.size(); ++slot) {
    const auto open = in.get_count("open windows", n_, sizeof(float) + sizeof(double));
    open_[slot] = open;
    next_[slot] = open % n_;
    for (std::size_t i = 0; i < open; ++i) {
      const auto taken_q = in.get<float>("Q of the action");
      ring_[slot * n_ + i] = {taken_q, in.get<double>("reward")};
    }
  }
}

}  // namespace qanat::actors
