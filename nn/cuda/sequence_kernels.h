// The recurrent update's kernels beside the lstm's: targets, losses and priorities of a batch of sequences. Launches on
// the given stream, deterministic; what they compute depends on device memory and on shapes only.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "nn/cuda/kernels.h"
#include "nn/cuda/nature/kernels.h"
#include "nn/cuda/staging.h"
#include "nn/td.h"

namespace qanat::nn::cuda {

struct SequenceTdInputs {
  DeviceSequences batch;
  std::int64_t size = 0, actions = 0, features = 0;  // B, A, H
  std::int64_t burn_in = 0, unroll = 0, n_step = 0;
  float gamma = 0, priority_eta = 0;
  TdOptions td;
  std::int64_t q_row = 0;
  const float* online_q = nullptr;  // [unroll, B, q_row]
  const float* target_q = nullptr;
  std::int32_t* bad = nullptr;  // [burn_in + unroll, B] observations that are not finite; 0 afterwards
  // Results.
  float4* terms = nullptr;          // [unroll, B] of (d loss / d q of the action taken, 0, 0, 0)
  float* priorities = nullptr;      // [B]
  UpdateReport* report = nullptr;   // loss and mean_q
  OptimizerClock* clock = nullptr;  // scalars of the next step, as far as they are known
  OptimizerRule rule;
  double* partial = nullptr;    // [B, 3]: scratch
  unsigned* counter = nullptr;  // 0 before and after
};
// A sequence with anything not finite in it makes the loss NaN, so that the update is skipped.
void sequence_td(cudaStream_t stream, const SequenceTdInputs& inputs);

// delta [unroll, B, row] := d loss / d q at the action taken, 0 elsewhere. D is float or __nv_bfloat16.
template <class D>
void sequence_delta(cudaStream_t stream, const SequenceTdInputs& inputs, std::int64_t row, D* delta);

// Adds up what nature::torso_gradients() left, in a fixed order, into the first part of a block of gradients.
struct TorsoPartials {
  nature::Split split = {};
  const float* partials1 = nullptr;
  const float* partials2 = nullptr;
  const float* partials3 = nullptr;
  float input_scale = 1;
  const float* delta1_scale = nullptr;
  float* gradients = nullptr;
};
void sum_torso_partials(cudaStream_t stream, const TorsoPartials& args);

}  // namespace qanat::nn::cuda
