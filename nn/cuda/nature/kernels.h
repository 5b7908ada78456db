// The fused kernels of the Nature network's update, as functions that start them on a stream. nn/cuda/nature/layout.h
// says what lies where; nn/cuda/nature/trainer.cpp puts them in order.
//
// All pointers are device memory, aligned to 16 bytes. What a kernel computes depends on device memory only, so a
// captured launch can be replayed. For devices of compute capability 9.0. Each throws SystemError when a launch fails.
// Thread safety: as the CUDA runtime's.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "nn/cuda/kernels.h"
#include "nn/cuda/nature/layout.h"
#include "nn/cuda/staging.h"
#include "nn/optimizer.h"

namespace qanat::nn::nature {

// Raise the kernels' limits of dynamic shared memory on the current device; once, before any launch.
void prepare_forward();
void prepare_deltas();
void prepare_gradients();
void prepare_heads();

// The batch's states through the online network and its next states through both. Of the states, everything that the
// backward pass needs is kept.
struct TorsoForward {
  cuda::DeviceBatch batch = {};
  float input_scale = 1;                 // multiplies pixels
  bool online_next = true;               // false: the online network does not see the next states
  const std::uint8_t* packed = nullptr;  // packed_bytes
  const std::uint8_t* target_packed = nullptr;
  std::uint8_t* features = nullptr;         // [2 batch][image3_bytes]: states, then next states
  std::uint8_t* target_features = nullptr;  // [batch][image3_bytes]
  std::uint8_t* image1 = nullptr;           // [batch][image1_bytes]; null: neither image is kept
  std::uint8_t* image2 = nullptr;
};
void torso_forward(cudaStream_t stream, const TorsoForward& args, int multiprocessors);

struct TorsoDeltas {
  const std::uint8_t* packed_back = nullptr;     // packed_back_bytes
  const std::uint8_t* features = nullptr;        // [samples][image3_bytes]
  const std::uint8_t* feature_deltas = nullptr;  // the same shape; not masked yet
  const std::uint8_t* image1 = nullptr;
  const std::uint8_t* image2 = nullptr;
  std::uint8_t* delta3 = nullptr;  // [samples][delta3_bytes], and so on: before the relu, masked
  std::uint8_t* delta2 = nullptr;
  std::uint8_t* delta1 = nullptr;
  // delta 1 is written times a power of two that brings the largest d loss / d q near 64: conv1's gradient then stands
  // in the middle of fp16's range, whatever the batch size, the weights and the rewards are.
  const float4* terms = nullptr;  // head_forward()'s
  float* delta1_scale = nullptr;  // written
  int samples = 0;
};
void torso_deltas(cudaStream_t stream, const TorsoDeltas& args, int multiprocessors);

// How many blocks work on each convolution's weight gradient; each leaves one partial sum.
struct Split {
  int conv1 = 0, conv2 = 0, conv3 = 0;
};
[[nodiscard]] Split weight_gradient_split(int samples, int multiprocessors);
constexpr int partial1 = conv1_weights + 32;  // f32 of a partial sum: weights in fragment order, then biases
constexpr int partial2 = conv2_weights + 64;
constexpr int partial3 = conv3_weights + 64;

struct TorsoGradients {
  cuda::DeviceBatch batch = {};
  const std::uint8_t* image1 = nullptr;
  const std::uint8_t* image2 = nullptr;
  const std::uint8_t* delta3 = nullptr;
  const std::uint8_t* delta2 = nullptr;
  const std::uint8_t* delta1 = nullptr;
  float* partials1 = nullptr;  // [split.conv1][partial1], and so on
  float* partials2 = nullptr;
  float* partials3 = nullptr;
  Split split = {};
};
void torso_gradients(cudaStream_t stream, const TorsoGradients& args);

// Q-values of the batch three times (online s, online s', target s'), targets, losses, priorities; and the gradient's
// way back through the head.
struct HeadForward {
  Shape shape = {};
  TdOptions td = {};
  cuda::DeviceBatch batch = {};
  const __nv_bfloat16* hidden = nullptr;         // [2 batch, hidden] after relu, s then s'; s alone without double_q
  const __nv_bfloat16* target_hidden = nullptr;  // [batch, hidden]
  const __nv_bfloat16* head = nullptr;           // [rows, 512]
  const __nv_bfloat16* target_head = nullptr;
  const float* bias = nullptr;  // [rows]
  const float* target_bias = nullptr;
  float* td_abs = nullptr;                // [batch]
  float4* terms = nullptr;                // [batch] of (d loss / d q, loss, q, 0), both losses weighted, over batch
  __nv_bfloat16* hidden_delta = nullptr;  // [batch, hidden]: d loss / d what enters the hidden layer's relu
};
void head_forward(cudaStream_t stream, const HeadForward& args, int multiprocessors);

// Gradients of the head and of the hidden layer's bias, what the update reports of the batch, and the next step's
// scalars as far as they do not hang on the norm.
struct HeadGradients {
  Shape shape = {};
  cuda::DeviceBatch batch = {};
  const __nv_bfloat16* hidden = nullptr;        // [batch, hidden]
  const __nv_bfloat16* hidden_delta = nullptr;  // [batch, hidden]
  const float4* terms = nullptr;
  float* gradients = nullptr;             // the whole block in the private layout: hidden bias and head are written
  cuda::UpdateReport* report = nullptr;   // loss and mean_q are written
  cuda::OptimizerClock* clock = nullptr;  // scalars are written
  OptimizerRule rule = {};
};
void head_gradients(cudaStream_t stream, const HeadGradients& args);

// dense_squares() takes the squares of the dense part's gradients. Then finish_gradients() adds up the partial sums of
// the torso's, in a fixed order, and decides the step from all of them: norm, clipping, whether all is finite.
constexpr int square_sums = 874;
struct FinishGradients {
  Shape shape = {};
  const float* partials1 = nullptr;
  const float* partials2 = nullptr;
  const float* partials3 = nullptr;
  Split split = {};
  float input_scale = 1;
  const float* delta1_scale = nullptr;
  float* gradients = nullptr;  // the torso's part is written, the dense part behind the linear layer's weights read
  const __nv_bfloat16* linear_gradients = nullptr;  // of the linear layer's weights
  float* squares = nullptr;                         // [square_sums]: scratch
  OptimizerRule rule = {};
  const cuda::BatchHead* head = nullptr;
  cuda::OptimizerClock* clock = nullptr;
  unsigned* counter = nullptr;           // 0 before and after
  cuda::UpdateReport* report = nullptr;  // grad_norm and finite are written
};
void dense_squares(cudaStream_t stream, const FinishGradients& args);
void finish_gradients(cudaStream_t stream, const FinishGradients& args);

// One network in device memory.
struct Network {
  float* parameters = nullptr;          // private layout
  __nv_bfloat16* dense_copy = nullptr;  // the dense part in bf16
  std::uint8_t* packed = nullptr;       // packed_bytes
  std::uint8_t* packed_back = nullptr;  // packed_back_bytes; null for a network that is not trained
};

// The optimiser's step, and everything that follows from new parameters: copies, packed weights, target.
struct ApplyStep {
  Shape shape = {};
  float input_scale = 1;
  const float* gradients = nullptr;
  const __nv_bfloat16* linear_gradients = nullptr;  // stand for those of `gradients`
  Network online = {};
  Network target = {};
  float* mean = nullptr;
  float* square = nullptr;
  OptimizerRule rule = {};
  const cuda::OptimizerClock* clock = nullptr;
};
void apply_step(cudaStream_t stream, const ApplyStep& args);

// Copies and packed weights of parameters that the host has set.
void refresh_copies(cudaStream_t stream, const Shape& shape, float input_scale, const Network& network);
// The same of the torso's parameters alone.
void refresh_torso(cudaStream_t stream, float input_scale, const Network& network);

// For the host: the linear layer's gradients at their place in the block.
void widen_linear_gradients(cudaStream_t stream, const Shape& shape, const __nv_bfloat16* linear_gradients,
                            float* gradients);

}  // namespace qanat::nn::nature
