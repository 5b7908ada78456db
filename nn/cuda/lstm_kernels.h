// The lstm's elementwise kernels, as functions that start them on a stream. T is float or __nv_bfloat16; rows of gates
// are feature * 4 + gate. All pointers are device memory. What a kernel computes depends on device memory and on shapes
// only, so a captured launch can be replayed.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace qanat::nn::cuda {

// to [samples, width] := the layer below's row, the last action one-hot, the last reward, two ones that carry the two
// biases, zeros.
template <class T>
struct LstmInputs {
  const T* below = nullptr;                       // [samples, features]
  const std::int32_t* previous_action = nullptr;  // [samples]
  const float* previous_reward = nullptr;         // [samples]
  T* to = nullptr;
  std::int64_t samples = 0;
  int features = 0, actions = 0, width = 0;  // features and width: multiples of 8
};
template <class T>
void lstm_inputs(cudaStream_t stream, const LstmInputs<T>& args);

// to [count, to_row] := from [count, from_row], beyond that zeros: an initial state in the backend's type and width.
template <class T>
void lstm_widen(cudaStream_t stream, const float* from, int from_row, T* to, int to_row, std::int64_t count);

// One step of all sequences: gates from the two sums, the new cell and hidden state.
template <class T>
struct LstmStep {
  const float* recurrent_sums = nullptr;  // [B, 4 H]
  const T* sums = nullptr;                // [B, 4 H] of inputs and biases
  const float* cell_before = nullptr;     // [B, H]
  T* hidden = nullptr;                    // [B, H]
  T* gates = nullptr;                     // [B, 4 H]; null: not kept
  float* cell = nullptr;                  // [B, H]
  std::int64_t elements = 0;              // B * H
};
template <class T>
void lstm_step(cudaStream_t stream, const LstmStep<T>& args);

// The same step backward. Of each row the first `features` are real; beyond them the answer is zero.
template <class T>
struct LstmStepGradient {
  const T* gates = nullptr;
  const float* cell = nullptr;
  const float* cell_before = nullptr;
  const T* hidden_delta = nullptr;         // [B, H] from above
  const float* recurrent_delta = nullptr;  // [B, H] from the step after; null: there is none
  float* cell_delta = nullptr;             // [B, H] from the step after, and then for the step before
  T* sums_delta = nullptr;                 // [B, 4 H]
  std::int64_t elements = 0;
  int row = 0, features = 0;  // H padded, H
  bool last = false;          // nothing comes from the step after
};
template <class T>
void lstm_step_gradient(cudaStream_t stream, const LstmStepGradient<T>& args);

}  // namespace qanat::nn::cuda
