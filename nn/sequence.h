// Training a recurrent network on sequences, as R2D2 does (Kapturowski et al., 2019): the stored state is carried
// through `burn_in` steps without a gradient, then through `unroll` steps that are learnt from, by both networks;
// n-step double-Q targets within the sequence; one priority a sequence.
//
// Thread safety and ownership: as nn/backend.h says of a QTrainer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "nn/backend.h"
#include "nn/sequence_td.h"

namespace qanat::nn {

struct SequenceOptions {
  TrainerOptions update;  // batch counts sequences
  std::int64_t burn_in = 40;
  std::int64_t unroll = 80;  // the last n_step of an open sequence are only bootstrapped from
  std::int64_t n_step = 5;
  double gamma = 0.997;
  double priority_eta = 0.9;

  [[nodiscard]] std::int64_t steps() const { return burn_in + unroll; }
};

// B sequences of T = SequenceOptions::steps() steps, time first. Borrowed as a QBatch is. What stands at steps a
// sequence does not have (t >= length) changes nothing, as long as its numbers are finite and its indices valid.
struct SequenceBatch {
  std::int64_t size = 0;                          // B, must be TrainerOptions::batch
  ObservationRows observations = {};              // index [T, B, K]; each stored row once, however many stacks it is in
  const std::int32_t* previous_action = nullptr;  // [T, B] the action before the observation, -1: none
  const float* previous_reward = nullptr;         // [T, B]
  const std::int32_t* action = nullptr;           // [T, B]
  const float* reward = nullptr;                  // [T, B] of that action
  const std::uint8_t* mask = nullptr;             // [T, B, actions] 1 where allowed; null: all allowed
  const std::int32_t* length = nullptr;           // [B] observations of the sequence, 1 to T
  const SequenceEnd* end = nullptr;               // [B]
  const float* hidden = nullptr;                  // [B, H] the lstm's state before the first step, for both networks
  const float* cell = nullptr;                    // [B, H]
  const float* weight = nullptr;                  // [B] importance weights
};

// One recurrent double-DQN learner. The loss is mean over b of weight_b * sum over t of loss(td_bt).
class SequenceTrainer {
 public:
  virtual ~SequenceTrainer() = default;

  // As QTrainer's members of the same names. A sequence with nothing to learn from is refused too.
  [[nodiscard]] virtual std::size_t depth() const { return 1; }
  [[nodiscard]] virtual std::span<std::byte> row_memory(std::size_t /*bytes*/) { return {}; }
  virtual void submit(const SequenceBatch& batch, const UpdateControls& controls) = 0;
  // priorities: [B] eta max |td| + (1 - eta) mean |td|. mean_q is over all steps learnt from.
  virtual UpdateResult collect(std::span<float> priorities) = 0;

  // As QTrainer's members of the same names.
  virtual std::span<const float> parameters() = 0;
  virtual std::span<const float> target_parameters() = 0;
  virtual std::span<const float> gradients() = 0;
  virtual void set_parameters(std::span<const float> online, std::span<const float> target) = 0;
  [[nodiscard]] virtual std::vector<std::byte> save_optimizer() const = 0;
  virtual void load_optimizer(std::span<const std::byte> bytes) = 0;
};

// Throws ConfigError naming the option that is out of range, or when the network has no lstm.
void check_sequence_options(const NetworkSpec& spec, const SequenceOptions& options);
// Throws InputError when the batch does not fit.
void check_sequence_batch(const NetworkSpec& spec, const SequenceOptions& options, const SequenceBatch& batch);

}  // namespace qanat::nn
