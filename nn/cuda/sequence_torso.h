// The Nature torso's fused kernels (nn/cuda/nature) over the frames of a batch of sequences: both networks forward over
// all steps, the online one back over those after the burn-in.
//
// A network's block starts with the torso's parameters in canonical order (NetworkLayout's nature_torso). Features are
// bf16 in the kernels' order. Thread safety: one thread at a time. All but the constructor only enqueues, and can be
// captured.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "nn/cuda/device.h"
#include "nn/cuda/nature/kernels.h"
#include "nn/cuda/staging.h"
#include "nn/network.h"

namespace qanat::nn::cuda {

// Whether the network begins with the torso that the fused kernels know, and has no convolutions after it.
[[nodiscard]] bool begins_with_nature_torso(const NetworkSpec& spec);

class SequenceTorso {
 public:
  static constexpr std::size_t steps = 3;  // of a plan that it takes the place of

  // Samples: steps times sequences. `scale` multiplies pixels.
  SequenceTorso(const Device& device, std::int64_t burn_in_samples, std::int64_t learnt_samples, float scale);

  // features: [burn-in and learnt samples][3136]. Reads the networks' parameters anew.
  void forward(cudaStream_t stream, const DeviceSequences& batch, float* online, float* target,
               __nv_bfloat16* online_features, __nv_bfloat16* target_features);
  // Of the learnt samples: features and their gradients [learnt][3136], the latter not masked by the relu; terms
  // [learnt] of (d loss / d q, ...). gradients: a block's first part.
  void backward(cudaStream_t stream, const DeviceSequences& batch, const __nv_bfloat16* features,
                const __nv_bfloat16* feature_deltas, const float4* terms, float* gradients);

 private:
  using Bytes = DeviceBuffer<std::uint8_t>;

  [[nodiscard]] DeviceBatch learnt_batch(const DeviceSequences& batch) const;

  const int multiprocessors_;
  const std::int64_t burn_in_, learnt_;
  const float scale_;
  const nature::Split split_;
  Bytes packed_, target_packed_, packed_back_;
  Bytes image1_, image2_, delta3_, delta2_, delta1_;
  DeviceBuffer<float> partials1_, partials2_, partials3_;
  DeviceBuffer<float> delta1_scale_;
};

}  // namespace qanat::nn::cuda
