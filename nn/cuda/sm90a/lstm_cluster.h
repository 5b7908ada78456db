// The recurrence of an lstm of 512 features, forward and back, with its weights held in registers: kernels for clusters
// of sixteen blocks, for devices of compute capability 9.0.
//
// Batch rows do not depend on each other, so a cluster owns 8 to 32 of them for all steps and clusters never meet. A
// block owns 32 features, that is 128 KB of weights as fragments of mma.sync; h goes to the cluster's other blocks by
// st.async into their shared memory. Eight rows are a stream; a cluster works on several in turn, so that one stream's
// exchange hides behind another's products.
//
// Free functions over device memory; they enqueue and return. Throw SystemError when a launch fails.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace qanat::nn::cuda {

constexpr int cluster_lstm_features = 512;
constexpr int cluster_lstm_rows = 8;  // of a stream: batches are multiples of it

// One network. Rows of 4 * 512 are feature * 4 + gate.
struct ClusterLstmForward {
  const __nv_bfloat16* weight = nullptr;         // [2048, 512]
  const __nv_bfloat16* sums = nullptr;           // [steps, B, 2048] of inputs and biases
  const __nv_bfloat16* hidden_before = nullptr;  // [B, 512]
  const float* cell_before = nullptr;            // [B, 512]
  __nv_bfloat16* hidden = nullptr;               // [steps, B, 512]
  // What the backward pass reads; null: not kept.
  __nv_bfloat16* gates = nullptr;  // [steps, B, 2048] from step first_kept on
  float* cell = nullptr;           // [steps, B, 512] from the step before first_kept on
  int first_kept = 0;
};

struct ClusterLstmBackward {
  const uint4* weight = nullptr;                // packed by cluster_lstm_pack, 2 MB
  const __nv_bfloat16* gates = nullptr;         // [steps, B, 2048]
  const float* cell = nullptr;                  // [steps, B, 512]
  const float* cell_before = nullptr;           // [B, 512], before the first of these steps
  const __nv_bfloat16* hidden_delta = nullptr;  // [steps, B, 512] d loss / d h from above
  __nv_bfloat16* sums_delta = nullptr;          // [steps, B, 2048] d loss / d sums
};

// How many clusters of such a kernel the current device runs at once; 0 where it has none (another architecture, or a
// driver that refuses clusters of 16).
[[nodiscard]] int cluster_lstm_capacity();

// From [2048, 512] to the fragments of the backward pass.
void cluster_lstm_pack(cudaStream_t stream, const __nv_bfloat16* weight, uint4* packed);

// Preconditions: batch is a multiple of 8, networks is 1 or 2, steps >= 1; capacity is cluster_lstm_capacity(), above
// 0.
void cluster_lstm_forward(cudaStream_t stream, const ClusterLstmForward* network, int networks, int steps, int batch,
                          int capacity);
void cluster_lstm_backward(cudaStream_t stream, const ClusterLstmBackward& network, int steps, int batch, int capacity);

}  // namespace qanat::nn::cuda
