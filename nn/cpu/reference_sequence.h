// The operations that nn/sequence_engine.h adds, as plain loops that read like the maths: the oracle of the recurrent
// update. In f32 storage or f64; sums are f64 in both.
//
// Thread safety: one thread at a time.
#pragma once

#include <deque>
#include <span>
#include <vector>

#include "nn/cpu/reference.h"
#include "nn/lstm.h"
#include "nn/sequence_engine.h"

namespace qanat::nn {

template <class Real>
class ReferenceSequenceOps : public ReferenceOps<Real> {
 public:
  using typename ReferenceOps<Real>::Activations;
  using typename ReferenceOps<Real>::Block;
  struct Recurrence {
    LstmGates<Real>* gates = nullptr;  // [T * B][H]
    Real* cell = nullptr;              // [T * B][H]
  };
  using Pass = LstmPass<ReferenceSequenceOps>;
  using Network = SequenceNetwork<ReferenceSequenceOps>;

  // All three must outlive this object.
  ReferenceSequenceOps(const NetworkSpec& spec, const Plan& plan, const SequenceOptions& options);

  Recurrence recurrence(const Step& lstm);
  const SequenceBatch& stage(const SequenceBatch& batch, const UpdateControls& controls);

  std::span<const Step> begin(const SequenceBatch& batch, std::span<const Step> steps, Network& online, Network&) {
    this->load(batch.observations, online.all[0], 0, options_.steps() * batch.size);
    return steps;
  }
  void end(const SequenceBatch&, std::span<const Step>, const Network&, const std::vector<Activations>&, Block&) {}
  void lstm(const Step& step, const SequenceBatch& batch, const Pass& online, const Pass& target);
  // Deltas are of the steps after the burn-in alone.
  void lstm_gradient(const Step& step, const SequenceBatch& batch, const Pass& pass, const Activations& out_delta,
                     Activations& in_delta, Block& gradients);
  // Q-values and delta are of the steps after the burn-in alone.
  void sequence_td(const SequenceBatch& batch, const Activations& online_q, const Activations& target_q,
                   Activations& delta);

 private:
  // What a step of the lstm reads beside the layer below: h and c of the step before, and its row of the extra inputs.
  Real hidden_before(const Step& step, const SequenceBatch& batch, const Pass& pass, std::int64_t sample,
                     std::int64_t feature) const;
  Real cell_before(const SequenceBatch& batch, const Pass& pass, std::int64_t hidden, std::int64_t sample,
                   std::int64_t feature) const;
  // Calls visit(row of the input weight, value) for every input of a sample that is not 0.
  template <class Visit>
  void for_each_input(const Step& step, const SequenceBatch& batch, const Pass& pass, std::int64_t sample,
                      Visit visit) const;
  void lstm_forward(const Step& step, const SequenceBatch& batch, const Pass& pass);

  const SequenceOptions& options_;
  SequenceBatch batch_;
  std::deque<std::vector<LstmGates<Real>>> gates_;
  std::deque<std::vector<Real>> cells_;
};

extern template class ReferenceSequenceOps<float>;
extern template class ReferenceSequenceOps<double>;

}  // namespace qanat::nn
