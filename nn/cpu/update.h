// What the processor's two backends share of an update: the batch in hand, the loss over it, and the bookkeeping
// around an optimiser step. Thread safety: one thread at a time.
#pragma once

#include <cmath>
#include <optional>
#include <span>
#include <vector>

#include "nn/backend.h"
#include "nn/optimizer.h"

namespace qanat::nn {

template <class Real>
class CpuUpdate {
 public:
  explicit CpuUpdate(const TrainerOptions& options)
      : options_(options), td_abs_(static_cast<std::size_t>(options.batch)) {}

  const QBatch& stage(const QBatch& batch, const UpdateControls& controls) {
    batch_ = batch;
    controls_ = controls;
    return batch_;
  }

  static std::span<std::byte> row_memory(std::size_t /*bytes*/) { return {}; }  // they are read where they are

  const ObservationRows& stage(const ObservationRows& rows, std::int64_t /*samples*/) { return rows; }

  // One update at a time, one thing after another, no more samples than are asked for.
  static constexpr std::size_t depth = 1;
  template <class Work>
  void beside(Work work) {
    work();
  }
  void join() {}
  std::int64_t pass_size(std::int64_t samples) const { return samples; }

  UpdateResult result(std::span<float> td_abs) {
    std::copy(td_abs_.begin(), td_abs_.end(), td_abs.begin());
    return result_;
  }

 protected:
  // The four tensors of Q-values are laid out alike: sample b's first at [locate(b)], its next ones action_step on.
  struct QValues {
    const Real* q;
    const Real* choosing;  // picks a*
    const Real* target;    // values it
    Real* delta;           // becomes d loss / d q
  };
  template <class Locate>
  void td_batch(const QBatch& batch, std::int64_t actions, const QValues& values, Locate locate,
                std::int64_t action_step) {
    double loss = 0;
    double sum_q = 0;
    for (std::int64_t b = 0; b < batch.size; ++b) {
      const std::int64_t at = locate(b);
      const std::uint8_t* mask = batch.next_mask != nullptr ? batch.next_mask + b * actions : nullptr;
      const std::int64_t best = masked_argmax(values.choosing + at, action_step, mask, actions);
      const Real target =
          td_target<Real>(batch.returns[b], batch.bootstrap[b], values.target[at + best * action_step], options_.td);
      const Real taken_q = values.q[at + batch.action[b] * action_step];
      const TdTerms<Real> terms = td_terms<Real>(taken_q, target, options_.td);
      const Real weight = static_cast<Real>(batch.weight[b]) / static_cast<Real>(batch.size);
      for (std::int64_t a = 0; a < actions; ++a) {
        values.delta[at + a * action_step] = a == batch.action[b] ? weight * terms.gradient : Real(0);
      }
      loss += static_cast<double>(weight) * static_cast<double>(terms.loss);
      sum_q += taken_q;
      td_abs_[b] = static_cast<float>(std::abs(terms.td));
    }
    result_.loss = loss;
    result_.mean_q = sum_q / static_cast<double>(batch.size);
  }

  // The next step's scalars, or nothing when the update must be skipped. A sync asked for in a skipped update is
  // remembered.
  std::optional<StepScalars<Real>> begin_step(double squared_norm) {
    result_.grad_norm = std::sqrt(squared_norm);
    result_.finite = std::isfinite(result_.loss) && std::isfinite(result_.grad_norm);
    sync_pending_ = sync_pending_ || controls_.sync_target;
    if (!result_.finite) return std::nullopt;
    ++steps_;
    const bool sync = sync_pending_;
    sync_pending_ = false;
    const OptimizerRule rule = optimizer_rule(options_);
    StepScalars<Real> scalars = step_scalars<Real>(rule, controls_.learning_rate, steps_);
    complete_scalars(scalars, rule, sync, result_.grad_norm);
    return scalars;
  }

  const TrainerOptions options_;
  std::int64_t steps_ = 0;  // finished updates, as Adam's bias correction counts them

  UpdateControls controls_;
  UpdateResult result_;
  std::vector<float> td_abs_;

 private:
  QBatch batch_;
  bool sync_pending_ = false;
};

}  // namespace qanat::nn
