// Layers of the general path, forward and backward.
#include "nn/cuda/ops.h"

namespace qanat::nn::cuda {

// Planned at first use, which is in the run that is not captured.
template <class T>
template <class Shape>
const Gemm& CudaOps<T>::product(const Step& step, Product what, std::int64_t samples, Shape shape) {
  const PlanKey key{step.weight, static_cast<int>(what), samples};
  const auto known = products_.find(key);
  if (known != products_.end()) return known->second;
  GemmShape wanted = shape();
  wanted.in = LibraryType<T>::cublas;
  wanted.tf32 = precision_ == Precision::tf32;
  std::optional<Gemm> planned = Gemm::plan(lane_->blas, lane_->stream, wanted);
  if (!planned && wanted.epilogue == Epilogue::column_sums) wanted.epilogue = Epilogue::none;
  if (!planned) planned = Gemm(lane_->blas, lane_->stream, wanted);
  return products_.emplace(key, *planned).first->second;
}

template <class T>
const Convolution& CudaOps<T>::convolution(const Step& step, Convolution::Kind kind, std::int64_t samples) {
  const PlanKey key{step.weight, static_cast<int>(kind), samples};
  const auto known = convolutions_.find(key);
  if (known != convolutions_.end()) return known->second;
  const ConvProblem problem{
      .layout = layout_.conv(step), .samples = samples, .precision = precision_, .relu = step.relu};
  return convolutions_.emplace(key, Convolution(lane_->dnn, kind, problem)).first->second;
}

template <class T>
float* CudaOps<T>::bias_gradient(const Step& step) const {
  const bool linear = step.kind == StepKind::linear;
  return gradients_.master + (linear ? layout_.linear(step).bias : layout_.offset(step.bias));
}

// Of a layer's output: a convolution's pixels are rows of channels, a linear layer's samples are rows of features.
template <class T>
MaskShape CudaOps<T>::delta_shape(const Step& step, std::int64_t row, std::int64_t samples) const {
  if (step.kind == StepKind::conv2d) {
    const ConvLayout& c = layout_.conv(step);
    return {.rows = samples * c.out_height * c.out_width,
            .columns = c.out_channels,
            .value_row = c.out_channels,
            .delta_row = c.out_channels};
  }
  return {.rows = samples, .columns = layout_.linear(step).out.width(), .value_row = row, .delta_row = row};
}

template <class T>
void CudaOps<T>::sum_bias(const Step& step, const Activations& out_delta, std::int64_t samples) {
  mask_and_sum<T>(lane_->stream, delta_shape(step, out_delta.width, samples), nullptr,
                  out_delta.at(layout_.view(step.out)), bias_gradient(step), lane_->scratch.data(),
                  lane_->counter.data());
}

// After the last product that adds to a delta: the relu's mask, and the sums.
template <class T>
void CudaOps<T>::finish_delta(const Step& step, const Activations& in, Activations& in_delta, std::int64_t samples) {
  const ViewLayout& view = layout_.view(step.in);
  const auto maker = maker_of_.find(&step);
  if (maker != maker_of_.end()) {
    mask_and_sum(lane_->stream, delta_shape(*maker->second, in.width, samples), static_cast<const T*>(in.at(view)),
                 in_delta.at(view), bias_gradient(*maker->second), lane_->scratch.data(), lane_->counter.data());
  } else if (step.input_is_relu) {
    const MaskShape shape{.rows = samples, .columns = view.width(), .value_row = in.width, .delta_row = in_delta.width};
    mask_and_sum<T>(lane_->stream, shape, in.at(view), in_delta.at(view), nullptr, nullptr, nullptr);
  }
}

// Y [samples, out] = X [samples, in] W [in, out] + bias.
template <class T>
void CudaOps<T>::linear(const Step& step, const Block& p, const Activations& in, Activations& out,
                        std::int64_t samples) {
  const LinearLayout& l = layout_.linear(step);
  if (l.absorbed) return;
  const bool f32 = sizeof(T) == 4 || holds_f32(step.out.buffer, Holds::values);
  const Gemm& gemm = product(step, Product::forward, samples, [&] {
    const cudaDataType_t type = f32 ? CUDA_R_32F : LibraryType<T>::cublas;
    return GemmShape{.m = samples,
                     .n = l.out.width(),
                     .k = l.in.width(),
                     .a_row = in.width,
                     .b_row = l.out.width(),
                     .d_row = out.width,
                     .out = type,
                     .epilogue = step.relu ? Epilogue::bias_relu : Epilogue::bias,
                     .bias = type};
  });
  void* to = f32 ? static_cast<void*>(out.floats() + l.out.offset) : out.at(l.out);
  void* bias = f32 ? static_cast<void*>(p.master + l.bias) : p.copy + l.bias;
  gemm.run(lane_->blas, lane_->stream, in.at(l.in), p.copy + l.weight, to, bias);
}

// dW [in, out] = X' [in, samples] dY [samples, out]; the bias's gradient is the sum of dY over the samples.
template <class T>
void CudaOps<T>::linear_weight_gradient(const Step& step, const Activations& in, const Activations& out_delta,
                                        Block& gradients, std::int64_t samples) {
  const LinearLayout& l = layout_.linear(step);
  if (l.absorbed) return;
  gradients_ = gradients;
  const bool summed = biases_summed_.contains(&step);
  beside([&] {
    const Gemm& gemm = product(step, Product::weight_gradient, samples, [&] {
      return GemmShape{.m = l.in.width(),
                       .n = l.out.width(),
                       .k = samples,
                       .a_row = in.width,
                       .b_row = out_delta.width,
                       .d_row = l.out.width(),
                       .a_transposed = true,
                       .epilogue = summed ? Epilogue::none : Epilogue::column_sums};
    });
    const bool sums = gemm.shape().epilogue == Epilogue::column_sums;
    gemm.run(lane_->blas, lane_->stream, in.at(l.in), out_delta.at(l.out), gradients.master + l.weight,
             sums ? gradients.master + l.bias : nullptr);
    if (!sums && !summed) sum_bias(step, out_delta, samples);
  });
}

// dX [samples, in] = dY [samples, out] W' [out, in].
template <class T>
void CudaOps<T>::linear_input_gradient(const Step& step, const Block& p, const Activations& in,
                                       const Activations& out_delta, Activations& in_delta, std::int64_t samples) {
  const LinearLayout& l = layout_.linear(step);
  if (l.absorbed) return;
  const Gemm& gemm = product(step, Product::input_gradient, samples, [&] {
    return GemmShape{.m = samples,
                     .n = l.in.width(),
                     .k = l.out.width(),
                     .a_row = out_delta.width,
                     .b_row = l.out.width(),
                     .d_row = in_delta.width,
                     .b_transposed = true,
                     .out = LibraryType<T>::cublas,
                     .accumulate = l.accumulate};
  });
  gemm.run(lane_->blas, lane_->stream, out_delta.at(l.out), p.copy + l.weight, in_delta.at(l.in));
  finish_delta(step, in, in_delta, samples);
}

template <class T>
void CudaOps<T>::conv2d(const Step& step, const Block& p, const Activations& in, Activations& out,
                        std::int64_t samples) {
  const Convolution& conv = convolution(step, Convolution::Kind::forward, samples);
  conv.forward(lane_->dnn, in.data, p.copy + layout_.offset(step.weight), p.copy + layout_.offset(step.bias), out.data);
}

template <class T>
void CudaOps<T>::conv2d_weight_gradient(const Step& step, const Activations& in, const Activations& out_delta,
                                        Block& gradients, std::int64_t samples) {
  gradients_ = gradients;
  beside([&] {
    const Convolution& conv = convolution(step, Convolution::Kind::weight_gradient, samples);
    conv.weight_gradient(lane_->dnn, in.data, out_delta.data, gradients.copy + layout_.offset(step.weight));
    if (!biases_summed_.contains(&step)) sum_bias(step, out_delta, samples);
  });
}

template <class T>
void CudaOps<T>::conv2d_input_gradient(const Step& step, const Block& p, const Activations& in,
                                       const Activations& out_delta, Activations& in_delta, std::int64_t samples) {
  const Convolution& conv = convolution(step, Convolution::Kind::data_gradient, samples);
  conv.data_gradient(lane_->dnn, p.copy + layout_.offset(step.weight), out_delta.data, in_delta.data, step.accumulate);
  finish_delta(step, in, in_delta, samples);
}

template <class T>
void CudaOps<T>::layer_norm(const Step& step, const Block& p, const Activations& in, Activations& out,
                            std::int64_t samples) {
  const NormShape shape{.in = layout_.view(step.in), .in_row = in.width, .out_row = out.width, .samples = samples};
  layer_norm_forward(lane_->stream, shape, in.at(shape.in), p.master + layout_.offset(step.weight),
                     p.master + layout_.offset(step.bias), out.at(layout_.view(step.out)), step.relu);
}

template <class T>
void CudaOps<T>::layer_norm_gradient(const Step& step, const Block& p, const Activations& in,
                                     const Activations& out_delta, Activations& in_delta, Block& gradients,
                                     std::int64_t samples) {
  const NormShape shape{
      .in = layout_.view(step.in), .in_row = in.width, .out_row = out_delta.width, .samples = samples};
  T* to = step.input_gradient ? in_delta.at(shape.in) : nullptr;
  layer_norm_backward(lane_->stream, shape, in.at(shape.in), p.master + layout_.offset(step.weight),
                      out_delta.at(layout_.view(step.out)), to, in_delta.width, step.accumulate, step.input_is_relu,
                      lane_->scratch.data(), gradients.master + layout_.offset(step.weight),
                      gradients.master + layout_.offset(step.bias));
}

template <class T>
void CudaOps<T>::relu(const Step&, const Activations& in, Activations& out, std::int64_t samples) {
  relu_forward(lane_->stream, static_cast<const T*>(in.data), static_cast<T*>(out.data), samples * in.width);
}

template <class T>
DuelingShape CudaOps<T>::dueling_shape(const Step& step, std::int64_t in_row, std::int64_t q_row,
                                       std::int64_t samples) const {
  // Value and advantages are views of their own: the first feature, and what follows it.
  const View value{.buffer = step.in.buffer, .offset = step.in.offset, .features = 1};
  const View advantage{.buffer = step.in.buffer, .offset = step.in.offset + 1, .features = step.out.features};
  return {.samples = samples,
          .actions = step.out.features,
          .in_row = in_row,
          .q_row = q_row,
          .value = layout_.view(value).offset,
          .advantage = layout_.view(advantage).offset};
}

template <class T>
void CudaOps<T>::dueling(const Step& step, const Activations& in, Activations& out, std::int64_t samples) {
  dueling_forward(lane_->stream, dueling_shape(step, in.width, out.width, samples), in.floats(), out.floats());
}

template <class T>
void CudaOps<T>::dueling_gradient(const Step& step, const Activations& out_delta, Activations& in_delta,
                                  std::int64_t samples) {
  dueling_backward(lane_->stream, dueling_shape(step, in_delta.width, out_delta.width, samples), out_delta.floats(),
                   static_cast<T*>(in_delta.data));
}

template class CudaOps<__nv_bfloat16>;
template class CudaOps<float>;

}  // namespace qanat::nn::cuda
