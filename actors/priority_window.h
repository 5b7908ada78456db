// First priorities: |TD error| of every item, from the Q-values with which the actor acted.
//
// The same arithmetic as the learner's (learner/agent.h prepares, nn/td.h computes), so with equal weights both give
// equal numbers: rewards are kept raw and counted by the scale in force when an item is priced. With one network the
// double-Q argmax and the target's maximum are the same: the largest Q of an allowed action. One owner; no allocation
// after construction except in `out` vectors that grow.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "actors/config.h"
#include "core/bytes.h"

namespace qanat::actors {

struct PricedItem {
  std::uint64_t start_row = 0;
  float priority = 0;
  friend bool operator==(const PricedItem&, const PricedItem&) = default;
};

class PriorityWindows {
 public:
  // n_step >= 1.
  PriorityWindows(const AgentView& agent, std::size_t slots);

  // How rewards count from now on: of the statistics that came with the newest weights.
  void set_reward_scale(const nn::RewardScale& scale) { reward_scale_ = scale; }

  // Row `row` of the slot's stream: the state's largest allowed Q, the Q of the action taken, its raw reward. Rows
  // follow each other without gaps. Returns the item that this row completes (it began n rows before), if any; one
  // whose priority is not a finite number is left out, and the shard prices it.
  std::optional<PricedItem> step(std::size_t slot, std::uint64_t row, float best_q, float taken_q, float reward);

  // The episode is over, and row `last_row` holds its last observation: appends the items that it completes to `out`,
  // start rows ascending. `final_q` is the last observation's largest allowed Q; not looked at when terminated.
  void end(std::size_t slot, std::uint64_t last_row, bool terminated, float final_q, std::vector<PricedItem>& out);

  // Forgets the slot's open windows: a new stream begins.
  void reset(std::size_t slot) { open_[slot] = 0; }

  void save(ByteWriter& out) const;
  void load(ByteReader& in);  // throws InputError

 private:
  struct Step {
    float taken_q = 0;
    double reward = 0;  // raw; a double as in the learner's sum
  };
  [[nodiscard]] const Step& back(std::size_t slot, std::size_t steps) const;
  // Of the item that began `steps` rows before the row whose value is next_q.
  [[nodiscard]] float price(std::size_t slot, std::size_t steps, bool terminal, float next_q) const;

  AgentView agent_;
  nn::RewardScale reward_scale_;
  std::size_t n_;
  std::vector<double> discounts_;  // gamma^k, k = 0..n
  std::vector<Step> ring_;         // [slots, n]
  std::vector<std::size_t> next_;  // [slots] where the next step goes
  std::vector<std::size_t> open_;  // [slots] steps of the running episode in the ring, at most n
};

}  // namespace qanat::actors
