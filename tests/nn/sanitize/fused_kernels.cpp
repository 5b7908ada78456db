// Launches every fused kernel of the Nature network, for compute-sanitizer: racecheck and synccheck cannot follow
// cuBLASLt's kernels, which a whole update has between them. Values do not matter to these tools; sizes do: blocks with
// one sample and with several, so that every buffer is used again.
//
// usage: compute-sanitizer --tool racecheck fused_kernels
#include <cstdio>

#include "nn/cuda/device.h"
#include "nn/cuda/nature/kernels.h"

namespace qanat::nn::nature {
namespace {

using cuda::DeviceBuffer;
using Bytes = DeviceBuffer<std::uint8_t>;
using Floats = DeviceBuffer<float>;
using Bf16 = DeviceBuffer<__nv_bfloat16>;

class Memory {
 public:
  Memory(const Shape& shape, int samples, const Split& split)
      : batch_(static_cast<std::size_t>(samples)),
        features(2 * batch_ * image3_bytes),
        target_features(batch_ * image3_bytes),
        image1(batch_ * image1_bytes),
        image2(batch_ * image2_bytes),
        feature_deltas(batch_ * image3_bytes),
        delta3(batch_ * delta3_bytes),
        delta2(batch_ * delta2_bytes),
        delta1(batch_ * delta1_bytes),
        mask(batch_ * static_cast<std::size_t>(shape.actions)),
        hidden(2 * batch_ * static_cast<std::size_t>(shape.hidden())),
        target_hidden(batch_ * static_cast<std::size_t>(shape.hidden())),
        hidden_delta(batch_ * static_cast<std::size_t>(shape.hidden())),
        terms(batch_),
        columns(3 * batch_),
        td_abs(batch_),
        index(2 * batch_ * stack),
        action(batch_),
        partials1(static_cast<std::size_t>(split.conv1) * partial1),
        partials2(static_cast<std::size_t>(split.conv2) * partial2),
        partials3(static_cast<std::size_t>(split.conv3) * partial3) {
    const cuda::BatchHead staged{.state_rows = reinterpret_cast<const std::byte*>(rows.data()),
                                 .next_rows = reinterpret_cast<const std::byte*>(rows.data()),
                                 .learning_rate = 1e-3,
                                 .sync_target = 1,
                                 .masked = 1};
    QANAT_CUDA(cudaMemcpy(head.data(), &staged, sizeof(staged), cudaMemcpyHostToDevice));
  }

  [[nodiscard]] cuda::DeviceBatch batch() const {
    return {.head = head.data(),
            .state_index = index.data(),
            .next_index = index.data() + batch_ * stack,
            .action = action.data(),
            .returns = columns.data(),
            .bootstrap = columns.data() + batch_,
            .weight = columns.data() + 2 * batch_,
            .next_mask = mask.data(),
            .size = static_cast<std::int64_t>(batch_)};
  }
  [[nodiscard]] Network online() const {
    return {parameters.data(), dense_copy.data(), packed.data(), packed_back.data()};
  }
  [[nodiscard]] Network target() const {
    return {target_parameters.data(), target_dense_copy.data(), target_packed.data(), nullptr};
  }

 private:
  std::size_t batch_;
  static constexpr auto block = static_cast<std::size_t>(3300352);  // above any shape's parameters()

 public:
  Bytes rows{frame_bytes}, features, target_features, image1, image2, feature_deltas, delta3, delta2, delta1, mask;
  Bf16 hidden, target_hidden, hidden_delta;
  DeviceBuffer<float4> terms;
  Floats columns, td_abs;
  DeviceBuffer<std::uint32_t> index;
  DeviceBuffer<std::int32_t> action;
  Floats partials1, partials2, partials3;
  DeviceBuffer<cuda::BatchHead> head{1};
  Floats squares{square_sums}, gradients{block}, mean{block}, square{block}, parameters{block},
      target_parameters{block}, scale{1};
  Bf16 dense_copy{block}, target_dense_copy{block}, linear_gradients{block};
  Bytes packed{packed_bytes}, target_packed{packed_bytes}, packed_back{packed_back_bytes};
  DeviceBuffer<cuda::OptimizerClock> clock{1};
  DeviceBuffer<cuda::UpdateReport> report{1};
  DeviceBuffer<unsigned> counter{1};
};

// An update without its matrix products. `multiprocessors`: how many the kernels are told to fill.
void launch_all(const cuda::Stream& stream, const Shape& shape, int samples, int multiprocessors, const Split& split) {
  const Memory m(shape, samples, split);
  const cuda::DeviceBatch batch = m.batch();
  const Network online = m.online(), target = m.target();
  const OptimizerRule rule{.beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .max_grad_norm = 10};
  refresh_copies(stream, shape, 1 / 255.0f, online);
  torso_forward(stream,
                {.batch = batch,
                 .input_scale = 1 / 255.0f,
                 .packed = online.packed,
                 .target_packed = target.packed,
                 .features = m.features.data(),
                 .target_features = m.target_features.data(),
                 .image1 = m.image1.data(),
                 .image2 = m.image2.data()},
                multiprocessors);
  head_forward(stream,
               {.shape = shape,
                .batch = batch,
                .hidden = m.hidden.data(),
                .target_hidden = m.target_hidden.data(),
                .head = online.dense_copy,
                .target_head = target.dense_copy,
                .bias = online.parameters,
                .target_bias = target.parameters,
                .td_abs = m.td_abs.data(),
                .terms = m.terms.data(),
                .hidden_delta = m.hidden_delta.data()},
               multiprocessors);
  head_gradients(stream, {.shape = shape,
                          .batch = batch,
                          .hidden = m.hidden.data(),
                          .hidden_delta = m.hidden_delta.data(),
                          .terms = m.terms.data(),
                          .gradients = m.gradients.data(),
                          .report = m.report.data(),
                          .clock = m.clock.data(),
                          .rule = rule});
  torso_deltas(stream,
               {.packed_back = online.packed_back,
                .features = m.features.data(),
                .feature_deltas = m.feature_deltas.data(),
                .image1 = m.image1.data(),
                .image2 = m.image2.data(),
                .delta3 = m.delta3.data(),
                .delta2 = m.delta2.data(),
                .delta1 = m.delta1.data(),
                .terms = m.terms.data(),
                .delta1_scale = m.scale.data(),
                .samples = samples},
               multiprocessors);
  torso_gradients(stream, {.batch = batch,
                           .image1 = m.image1.data(),
                           .image2 = m.image2.data(),
                           .delta3 = m.delta3.data(),
                           .delta2 = m.delta2.data(),
                           .delta1 = m.delta1.data(),
                           .partials1 = m.partials1.data(),
                           .partials2 = m.partials2.data(),
                           .partials3 = m.partials3.data(),
                           .split = split});
  const FinishGradients finish = {.shape = shape,
                                  .partials1 = m.partials1.data(),
                                  .partials2 = m.partials2.data(),
                                  .partials3 = m.partials3.data(),
                                  .split = split,
                                  .input_scale = 1 / 255.0f,
                                  .delta1_scale = m.scale.data(),
                                  .gradients = m.gradients.data(),
                                  .linear_gradients = m.linear_gradients.data(),
                                  .squares = m.squares.data(),
                                  .rule = rule,
                                  .head = batch.head,
                                  .clock = m.clock.data(),
                                  .counter = m.counter.data(),
                                  .report = m.report.data()};
  dense_squares(stream, finish);
  finish_gradients(stream, finish);
  apply_step(stream, {.shape = shape,
                      .input_scale = 1 / 255.0f,
                      .gradients = m.gradients.data(),
                      .linear_gradients = m.linear_gradients.data(),
                      .online = online,
                      .target = target,
                      .mean = m.mean.data(),
                      .square = m.square.data(),
                      .rule = rule,
                      .clock = m.clock.data()});
  widen_linear_gradients(stream, shape, m.linear_gradients.data(), m.gradients.data());
  stream.synchronize();
}

void run() {
  prepare_forward();
  prepare_deltas();
  prepare_gradients();
  prepare_heads();
  const cuda::Stream stream;
  const Shape dueling{.actions = 18, .dueling = true};
  launch_all(stream, dueling, 16, 2, {.conv1 = 2, .conv2 = 2, .conv3 = 1});
  launch_all(stream, dueling, 16, 132, weight_gradient_split(16, 132));
  launch_all(stream, {.actions = 6, .dueling = false}, 1, 132, weight_gradient_split(1, 132));
  std::puts("every fused kernel has run");
}

}  // namespace
}  // namespace qanat::nn::nature

int main() {
  qanat::nn::nature::run();
  return 0;
}
