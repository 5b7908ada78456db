#include "nn/cuda/sequence_torso.h"

#include <vector>

#include "nn/cuda/sequence_kernels.h"

namespace qanat::nn::cuda {
namespace {

using namespace nature;

template <class T>
std::uint8_t* bytes(T* data) {
  return reinterpret_cast<std::uint8_t*>(data);
}
template <class T>
const std::uint8_t* bytes(const T* data) {
  return reinterpret_cast<const std::uint8_t*>(data);
}

bool is_conv(const Layer& l, std::int64_t out, std::int64_t kernel, std::int64_t stride) {
  return l.kind == LayerKind::conv2d && l.out[0] == out && l.kernel == kernel && l.stride == stride;
}

}  // namespace

bool begins_with_nature_torso(const NetworkSpec& spec) {
  const auto& l = spec.layers;
  return spec.input.dtype == DType::u8 && spec.stack == stack &&
         spec.stacked_shape() == std::vector<std::int64_t>{4, 84, 84} && l.size() > 6 && is_conv(l[0], 32, 8, 4) &&
         is_conv(l[2], 64, 4, 2) && is_conv(l[4], 64, 3, 1) && l[1].kind == LayerKind::relu &&
         l[3].kind == LayerKind::relu && l[5].kind == LayerKind::relu && l[6].kind == LayerKind::linear;
}

SequenceTorso::SequenceTorso(const Device& device, std::int64_t burn_in_samples, std::int64_t learnt_samples,
                             float scale)
    : multiprocessors_(device.multiprocessors()),
      burn_in_(burn_in_samples),
      learnt_(learnt_samples),
      scale_(scale),
      split_(weight_gradient_split(static_cast<int>(learnt_samples), device.multiprocessors())),
      packed_(packed_bytes),
      target_packed_(packed_bytes),
      packed_back_(packed_back_bytes),
      image1_(static_cast<std::size_t>(learnt_samples) * image1_bytes),
      image2_(static_cast<std::size_t>(learnt_samples) * image2_bytes),
      delta3_(static_cast<std::size_t>(learnt_samples) * delta3_bytes),
      delta2_(static_cast<std::size_t>(learnt_samples) * delta2_bytes),
      delta1_(static_cast<std::size_t>(learnt_samples) * delta1_bytes),
      partials1_(static_cast<std::size_t>(split_.conv1) * partial1),
      partials2_(static_cast<std::size_t>(split_.conv2) * partial2),
      partials3_(static_cast<std::size_t>(split_.conv3) * partial3),
      delta1_scale_(1) {
  prepare_forward();
  prepare_deltas();
  prepare_gradients();
}

DeviceBatch SequenceTorso::learnt_batch(const DeviceSequences& batch) const {
  const std::uint32_t* index = batch.index + burn_in_ * stack;
  return {.head = batch.head, .state_index = index, .next_index = index, .size = learnt_};
}

// The kernels know states, which the online network sees, and next states, which the target network sees: here they are
// the same frames.
void SequenceTorso::forward(cudaStream_t stream, const DeviceSequences& batch, float* online, float* target,
                            __nv_bfloat16* online_features, __nv_bfloat16* target_features) {
  refresh_torso(stream, scale_, {.parameters = online, .packed = packed_.data(), .packed_back = packed_back_.data()});
  refresh_torso(stream, scale_, {.parameters = target, .packed = target_packed_.data()});
  TorsoForward pass{.batch = learnt_batch(batch),
                    .input_scale = scale_,
                    .online_next = false,
                    .packed = packed_.data(),
                    .target_packed = target_packed_.data(),
                    .features = bytes(online_features + burn_in_ * features),
                    .target_features = bytes(target_features + burn_in_ * features),
                    .image1 = image1_.data(),
                    .image2 = image2_.data()};
  torso_forward(stream, pass, multiprocessors_);
  if (burn_in_ == 0) return;
  pass.batch.state_index = batch.index;
  pass.batch.next_index = batch.index;
  pass.batch.size = burn_in_;
  pass.features = bytes(online_features);
  pass.target_features = bytes(target_features);
  pass.image1 = nullptr;
  pass.image2 = nullptr;
  torso_forward(stream, pass, multiprocessors_);
}

void SequenceTorso::backward(cudaStream_t stream, const DeviceSequences& batch, const __nv_bfloat16* online_features,
                             const __nv_bfloat16* feature_deltas, const float4* terms, float* gradients) {
  torso_deltas(stream,
               {.packed_back = packed_back_.data(),
                .features = bytes(online_features),
                .feature_deltas = bytes(feature_deltas),
                .image1 = image1_.data(),
                .image2 = image2_.data(),
                .delta3 = delta3_.data(),
                .delta2 = delta2_.data(),
                .delta1 = delta1_.data(),
                .terms = terms,
                .delta1_scale = delta1_scale_.data(),
                .samples = static_cast<int>(learnt_)},
               multiprocessors_);
  torso_gradients(stream, {.batch = learnt_batch(batch),
                           .image1 = image1_.data(),
                           .image2 = image2_.data(),
                           .delta3 = delta3_.data(),
                           .delta2 = delta2_.data(),
                           .delta1 = delta1_.data(),
                           .partials1 = partials1_.data(),
                           .partials2 = partials2_.data(),
                           .partials3 = partials3_.data(),
                           .split = split_});
  sum_torso_partials(stream, {.split = split_,
                              .partials1 = partials1_.data(),
                              .partials2 = partials2_.data(),
                              .partials3 = partials3_.data(),
                              .input_scale = scale_,
                              .delta1_scale = delta1_scale_.data(),
                              .gradients = gradients});
}

}  // namespace qanat::nn::cuda
