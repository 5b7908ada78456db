#include "nn/cuda/nature/trainer.h"

#include <cuda_profiler_api.h>

#include <algorithm>
#include <array>
#include <cassert>

#include "core/error.h"
#include "nn/cuda/gemm.h"
#include "nn/cuda/kernels.h"
#include "nn/cuda/nature/kernels.h"
#include "nn/cuda/nature/places.h"
#include "nn/cuda/staging.h"
#include "nn/engine.h"

namespace qanat::nn::nature {
namespace {

using cuda::DeviceBuffer;
using cuda::Epilogue;
using cuda::Event;
using cuda::Gemm;
using cuda::GemmShape;

using Bytes = DeviceBuffer<std::uint8_t>;
using Bf16 = DeviceBuffer<__nv_bfloat16>;

// One network's device memory.
class OwnedNetwork {
 public:
  OwnedNetwork(const Shape& shape, bool trained)
      : parameters_(static_cast<std::size_t>(shape.parameters())),
        dense_copy_(static_cast<std::size_t>(shape.dense_parameters())),
        packed_(packed_bytes),
        packed_back_(trained ? packed_back_bytes : 0) {}

  [[nodiscard]] Network view() const {
    return {parameters_.data(), dense_copy_.data(), packed_.data(), packed_back_.data()};
  }

 private:
  DeviceBuffer<float> parameters_;
  Bf16 dense_copy_;
  Bytes packed_, packed_back_;
};

// What an update writes on its way. Sizes in samples are the batch's unless said.
struct Workspace {
  Workspace(const Shape& shape, std::size_t batch, const Split& split)
      : features(2 * batch * image3_bytes),
        target_features(batch * image3_bytes),
        image1(batch * image1_bytes),
        image2(batch * image2_bytes),
        hidden(2 * batch * static_cast<std::size_t>(shape.hidden())),
        target_hidden(batch * static_cast<std::size_t>(shape.hidden())),
        hidden_delta(batch * static_cast<std::size_t>(shape.hidden())),
        terms(batch),
        feature_deltas(batch * image3_bytes),
        delta3(batch * delta3_bytes),
        delta2(batch * delta2_bytes),
        delta1(batch * delta1_bytes),
        partials1(static_cast<std::size_t>(split.conv1) * partial1),
        partials2(static_cast<std::size_t>(split.conv2) * partial2),
        partials3(static_cast<std::size_t>(split.conv3) * partial3),
        squares(square_sums) {}

  Bytes features, target_features, image1, image2;  // features: of 2 batch
  Bf16 hidden, target_hidden, hidden_delta;         // hidden: of 2 batch
  DeviceBuffer<float4> terms;
  Bytes feature_deltas, delta3, delta2, delta1;
  DeviceBuffer<float> partials1, partials2, partials3, squares;
};

// The linear layer's products: D [m, n] = A [m, k] B [k, n].
GemmShape hidden_shape(const Shape& shape, std::int64_t samples) {
  return {.m = samples,
          .n = shape.hidden(),
          .k = features,
          .a_row = features,
          .b_row = shape.hidden(),
          .d_row = shape.hidden(),
          .in = CUDA_R_16BF,
          .out = CUDA_R_16BF,
          .epilogue = Epilogue::bias_relu,
          .bias = CUDA_R_16BF};
}
GemmShape feature_delta_shape(const Shape& shape, std::int64_t samples) {
  return {.m = samples,
          .n = features,
          .k = shape.hidden(),
          .a_row = shape.hidden(),
          .b_row = shape.hidden(),
          .d_row = features,
          .b_transposed = true,
          .in = CUDA_R_16BF,
          .out = CUDA_R_16BF};
}
GemmShape weight_gradient_shape(const Shape& shape, std::int64_t samples) {
  return {.m = features,
          .n = shape.hidden(),
          .k = samples,
          .a_row = features,
          .b_row = shape.hidden(),
          .d_row = shape.hidden(),
          .a_transposed = true,
          .in = CUDA_R_16BF,
          .out = CUDA_R_16BF};
}

class FusedTrainer final : public QTrainer {
 public:
  FusedTrainer(const NetworkSpec& spec, const TrainerOptions& options, const cuda::Device& device)
      : spec_(spec),
        options_(options),
        device_(device),
        shape_(shape_of(spec)),
        rule_(optimizer_rule(options)),
        split_(weight_gradient_split(batch(), device.multiprocessors())),
        staging_({.batch = options.batch, .stack = stack, .actions = spec.actions, .row_bytes = frame_bytes}),
        online_(shape_, true),
        target_(shape_, false),
        work_(shape_, static_cast<std::size_t>(options.batch), split_),
        gradients_(block_size()),
        mean_(block_size()),
        square_(block_size()),
        linear_gradients_(static_cast<std::size_t>(shape_.linear_weights())),
        clock_(1),
        delta1_scale_(1),
        counter_(1),
        hidden_(blas_, main_, hidden_shape(shape_, (options.td.double_q ? 2 : 1) * options.batch)),
        target_hidden_(side_blas_, side_, hidden_shape(shape_, options.batch)),
        feature_deltas_(blas_, main_, feature_delta_shape(shape_, options.batch)),
        weight_gradient_(side_blas_, side_, weight_gradient_shape(shape_, options.batch)),
        places_(parameter_count(spec)),
        exchange_(parameter_count(spec)),
        canonical_(parameter_count(spec)) {
    prepare_forward();
    prepare_deltas();
    prepare_gradients();
    prepare_heads();
    const auto places = private_places(spec);
    cuda::upload<std::uint32_t>(main_, places_.data(), places.data(), places.size());
    main_.synchronize();
  }

  std::size_t depth() const override { return cuda::Staging::sets; }

  std::span<std::byte> row_memory(std::size_t bytes) override {
    device_.use();
    return staging_.row_memory(bytes);
  }

  void submit(const QBatch& batch, const UpdateControls& controls) override {
    assert(in_flight_ < depth());
    check_batch(spec_, options_, batch);
    device_.use();
    const std::size_t set = staging_.put(batch, controls);
    staging_.start(set, main_);
    if (!options_.capture) {
      QANAT_CUDA(cudaProfilerStart());  // as in nn/cuda/ops.h: for `ncu --profile-from-start off`
      enqueue(set);
      QANAT_CUDA(cudaProfilerStop());
    } else {
      if (!graphs_[set]) graphs_[set] = cuda::Graph::capture(main_, [&] { enqueue(set); });
      graphs_[set].launch(main_);
    }
    staging_.finish(set, main_);
    ++in_flight_;
  }

  UpdateResult collect(std::span<float> td_abs) override {
    assert(in_flight_ > 0);
    check_size("td_abs", td_abs.size(), static_cast<std::size_t>(options_.batch));
    device_.use();
    --in_flight_;
    return staging_.result(td_abs);
  }

  std::span<const float> parameters() override { return read(online_.view().parameters); }
  std::span<const float> target_parameters() override { return read(target_.view().parameters); }
  std::span<const float> gradients() override {
    device_.use();
    widen_linear_gradients(main_, shape_, linear_gradients_.data(), gradients_.data());
    return read(gradients_.data());
  }

  void set_parameters(std::span<const float> online, std::span<const float> target) override {
    check_size("online parameters", online.size(), canonical_.size());
    check_size("target parameters", target.size(), canonical_.size());
    const auto set = [&](std::span<const float> values, const Network& network) {
      write(values, network.parameters);
      refresh_copies(main_, shape_, spec_.input_scale, network);
    };
    set(online, online_.view());
    set(target, target_.view());
    main_.synchronize();
  }

  std::vector<std::byte> save_optimizer() const override {
    OptimizerState state;
    const auto mean = read(mean_.data());
    state.mean.assign(mean.begin(), mean.end());
    const auto square = read(square_.data());
    state.square.assign(square.begin(), square.end());
    cuda::download(main_, &state.steps, &clock_.data()->steps, 1);
    main_.synchronize();
    return pack_optimizer(options_, state);
  }

  void load_optimizer(std::span<const std::byte> bytes) override {
    const OptimizerState state = unpack_optimizer(options_, bytes, canonical_.size());
    write(state.mean, mean_.data());
    write(state.square, square_.data());
    cuda::upload(main_, &clock_.data()->steps, &state.steps, 1);
    main_.synchronize();
  }

 private:
  [[nodiscard]] int batch() const { return static_cast<int>(options_.batch); }
  [[nodiscard]] std::size_t block_size() const { return static_cast<std::size_t>(shape_.parameters()); }
  [[nodiscard]] const __nv_bfloat16* head_copy(const Network& network) const {
    return network.dense_copy + shape_.head_weight() - dense;
  }

  // Launches `critical` on the main stream and `other` on the side stream, to run at the same time. A graph starts
  // sooner what was captured first.
  template <class Critical, class Other>
  void side_by_side(Critical critical, Other other) {
    fork_.record(main_);
    critical();
    side_.wait(fork_);
    other();
    join_.record(side_);
    main_.wait(join_);
  }

  // One update of what stands in `set`: launches only.
  void enqueue(std::size_t set) {
    forward(set);
    backward(set);
    finish(set);
  }

  void forward(std::size_t set) {
    const cuda::DeviceBatch& batch = staging_.batch(set);
    const Network online = online_.view();
    const Network target = target_.view();
    torso_forward(main_,
                  {.batch = batch,
                   .input_scale = spec_.input_scale,
                   .online_next = options_.td.double_q,
                   .packed = online.packed,
                   .target_packed = target.packed,
                   .features = work_.features.data(),
                   .target_features = work_.target_features.data(),
                   .image1 = work_.image1.data(),
                   .image2 = work_.image2.data()},
                  device_.multiprocessors());
    const int bias = shape_.hidden_bias() - dense;
    side_by_side(
        [&] {
          hidden_.run(blas_, main_, work_.features.data(), online.dense_copy, work_.hidden.data(),
                      online.dense_copy + bias);
        },
        [&] {
          target_hidden_.run(side_blas_, side_, work_.target_features.data(), target.dense_copy,
                             work_.target_hidden.data(), target.dense_copy + bias);
        });
    head_forward(main_,
                 {.shape = shape_,
                  .td = options_.td,
                  .batch = batch,
                  .hidden = work_.hidden.data(),
                  .target_hidden = work_.target_hidden.data(),
                  .head = head_copy(online),
                  .target_head = head_copy(target),
                  .bias = online.parameters + shape_.head_bias(),
                  .target_bias = target.parameters + shape_.head_bias(),
                  .td_abs = staging_.priorities(set),
                  .terms = work_.terms.data(),
                  .hidden_delta = work_.hidden_delta.data()},
                 device_.multiprocessors());
  }

  void backward(std::size_t set) {
    const cuda::DeviceBatch& batch = staging_.batch(set);
    const Network online = online_.view();
    side_by_side(
        [&] {
          feature_deltas_.run(blas_, main_, work_.hidden_delta.data(), online.dense_copy, work_.feature_deltas.data());
          torso_deltas(main_,
                       {.packed_back = online.packed_back,
                        .features = work_.features.data(),
                        .feature_deltas = work_.feature_deltas.data(),
                        .image1 = work_.image1.data(),
                        .image2 = work_.image2.data(),
                        .delta3 = work_.delta3.data(),
                        .delta2 = work_.delta2.data(),
                        .delta1 = work_.delta1.data(),
                        .terms = work_.terms.data(),
                        .delta1_scale = delta1_scale_.data(),
                        .samples = this->batch()},
                       device_.multiprocessors());
          torso_gradients(main_, {.batch = batch,
                                  .image1 = work_.image1.data(),
                                  .image2 = work_.image2.data(),
                                  .delta3 = work_.delta3.data(),
                                  .delta2 = work_.delta2.data(),
                                  .delta1 = work_.delta1.data(),
                                  .partials1 = work_.partials1.data(),
                                  .partials2 = work_.partials2.data(),
                                  .partials3 = work_.partials3.data(),
                                  .split = split_});
        },
        [&] {
          head_gradients(side_, {.shape = shape_,
                                 .batch = batch,
                                 .hidden = work_.hidden.data(),
                                 .hidden_delta = work_.hidden_delta.data(),
                                 .terms = work_.terms.data(),
                                 .gradients = gradients_.data(),
                                 .report = staging_.report(set),
                                 .clock = clock_.data(),
                                 .rule = rule_});
          weight_gradient_.run(side_blas_, side_, work_.features.data(), work_.hidden_delta.data(),
                               linear_gradients_.data());
          dense_squares(side_, gradients_to_finish(set));
        });
  }

  void finish(std::size_t set) {
    finish_gradients(main_, gradients_to_finish(set));
    side_by_side(
        [&] {
          apply_step(main_, {.shape = shape_,
                             .input_scale = spec_.input_scale,
                             .gradients = gradients_.data(),
                             .linear_gradients = linear_gradients_.data(),
                             .online = online_.view(),
                             .target = target_.view(),
                             .mean = mean_.data(),
                             .square = square_.data(),
                             .rule = rule_,
                             .clock = clock_.data()});
        },
        [&] { staging_.send_back(set, side_); });
  }

  FinishGradients gradients_to_finish(std::size_t set) {
    return {.shape = shape_,
            .partials1 = work_.partials1.data(),
            .partials2 = work_.partials2.data(),
            .partials3 = work_.partials3.data(),
            .split = split_,
            .input_scale = spec_.input_scale,
            .delta1_scale = delta1_scale_.data(),
            .gradients = gradients_.data(),
            .linear_gradients = linear_gradients_.data(),
            .squares = work_.squares.data(),
            .rule = rule_,
            .head = staging_.batch(set).head,
            .clock = clock_.data(),
            .counter = counter_.data(),
            .report = staging_.report(set)};
  }

  // Private block to canonical host memory and back.
  std::span<const float> read(const float* block) const {
    device_.use();
    cuda::gather_elements(main_, block, places_.data(), static_cast<std::int64_t>(canonical_.size()), exchange_.data());
    cuda::download<float>(main_, canonical_.data(), exchange_.data(), canonical_.size());
    main_.synchronize();
    return {canonical_.data(), canonical_.size()};
  }
  void write(std::span<const float> values, float* block) {
    device_.use();
    std::copy(values.begin(), values.end(), canonical_.data());
    cuda::upload<float>(main_, exchange_.data(), canonical_.data(), canonical_.size());
    cuda::scatter_elements<float>(main_, exchange_.data(), places_.data(), static_cast<std::int64_t>(canonical_.size()),
                                  block, nullptr);
    main_.synchronize();
  }

  const NetworkSpec spec_;
  const TrainerOptions options_;
  const cuda::Device device_;
  const Shape shape_;
  const OptimizerRule rule_;
  const Split split_;

  cuda::Stream main_, side_;
  cuda::Blas blas_, side_blas_;  // products on the two streams run at the same time
  Event fork_, join_;
  cuda::Staging staging_;
  OwnedNetwork online_, target_;
  Workspace work_;
  DeviceBuffer<float> gradients_, mean_, square_;  // private layout
  Bf16 linear_gradients_;                          // stand for theirs in gradients_ until the host asks
  DeviceBuffer<cuda::OptimizerClock> clock_;
  DeviceBuffer<float> delta1_scale_;
  DeviceBuffer<unsigned> counter_;
  Gemm hidden_, target_hidden_, feature_deltas_, weight_gradient_;

  DeviceBuffer<std::uint32_t> places_;  // canonical -> private
  DeviceBuffer<float> exchange_;        // canonical
  cuda::PinnedBuffer<float> canonical_;

  std::array<cuda::Graph, cuda::Staging::sets> graphs_;  // captured when a set is first used
  std::size_t in_flight_ = 0;
};

}  // namespace

std::string obstacle(const NetworkSpec& spec, const TrainerOptions& options, const cuda::Device& device) {
  if (device.capability() != 90) {
    return text("the fused kernels need compute capability 9.0; GPU ", device.index(), " has ",
                device.capability() / 10, ".", device.capability() % 10);
  }
  if (options.precision != "auto" && options.precision != "bf16") {
    return text("the fused kernels compute in bf16, not ", options.precision);
  }
  const std::string foreign = foreign_part(spec);
  return foreign.empty() ? "" : "the fused kernels do not know this network: " + foreign;
}

std::unique_ptr<QTrainer> make_trainer(const NetworkSpec& spec, const TrainerOptions& options,
                                       const cuda::Device& device) {
  device.use();
  return std::make_unique<FusedTrainer>(spec, options, device);
}

}  // namespace qanat::nn::nature
