// The operations of nn/sequence_engine.h on a GPU: those of the general path, and an lstm that may run in clusters.
// Thread safety: one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "nn/cuda/lstm.h"
#include "nn/cuda/ops.h"
#include "nn/cuda/sequence_kernels.h"
#include "nn/cuda/sequence_torso.h"
#include "nn/cuda/staging.h"
#include "nn/sequence_engine.h"

namespace qanat::nn::cuda {

template <class T>
class CudaSequenceOps : public CudaOps<T> {
 public:
  using typename CudaOps<T>::Activations;
  using typename CudaOps<T>::Block;
  using typename CudaOps<T>::Rows;
  using Recurrence = typename Lstm<T>::Memory*;
  using Pass = LstmPass<CudaSequenceOps>;
  using Network = SequenceNetwork<CudaSequenceOps>;
  struct Batch {
    DeviceSequences device;
    Rows observations;
  };

  // The first three must outlive this object.
  CudaSequenceOps(const NetworkSpec& spec, const Plan& plan, const SequenceOptions& options, const Device& device,
                  Precision precision);

  // The fused torso has no use for the buffers below its features.
  Activations activations(std::size_t buffer, std::int64_t samples, Holds holds);
  // The first one is the trained network's.
  Recurrence recurrence(const Step& lstm);

  Batch stage(const SequenceBatch& batch, const UpdateControls& controls);
  std::span<const Step> begin(const Batch& batch, std::span<const Step> steps, Network& online, Network& target);
  void end(const Batch& batch, std::span<const Step> steps, const Network& online,
           const std::vector<Activations>& deltas, Block& gradients);
  void linear_input_gradient(const Step& step, const Block& p, const Activations& in, const Activations& out_delta,
                             Activations& in_delta, std::int64_t samples);
  void lstm(const Step& step, const Batch& batch, const Pass& online, const Pass& target);
  void lstm_gradient(const Step& step, const Batch& batch, const Pass& pass, const Activations& out_delta,
                     Activations& in_delta, Block& gradients);
  void sequence_td(const Batch& batch, const Activations& online_q, const Activations& target_q, Activations& delta);

 private:
  [[nodiscard]] std::int64_t samples() const { return options_.steps() * options_.update.batch; }
  [[nodiscard]] std::int64_t learnt() const { return options_.unroll * options_.update.batch; }
  typename Lstm<T>::Pass lstm_pass(const Pass& pass) const;

  const SequenceOptions& options_;
  std::optional<SequenceTorso> torso_;  // the fused one
  std::size_t features_ = 0;            // its output's buffer
  Lstm<T> lstm_;
  std::deque<typename Lstm<T>::Memory> recurrences_;
  DeviceBuffer<float4> terms_;    // [unroll, B]
  DeviceBuffer<double> partial_;  // [B, 3]
};

extern template class CudaSequenceOps<__nv_bfloat16>;
extern template class CudaSequenceOps<float>;

}  // namespace qanat::nn::cuda
