#include "nn/cuda/conv.h"

#include <array>
#include <map>
#include <mutex>
#include <tuple>

#include "core/error.h"
#include "nn/cuda/kernels.h"
#include "nn/cuda/timing.h"

namespace qanat::nn::cuda {
namespace {

template <auto Destroy>
struct Destroyer {
  template <class T>
  void operator()(T* descriptor) const {
    Destroy(descriptor);
  }
};
template <class T, auto Destroy>
using Descriptor = std::unique_ptr<std::remove_pointer_t<T>, Destroyer<Destroy>>;
using TensorDescriptor = Descriptor<cudnnTensorDescriptor_t, cudnnDestroyTensorDescriptor>;

int narrow_int(std::int64_t value) { return static_cast<int>(value); }

TensorDescriptor nhwc(cudnnDataType_t type, std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t c) {
  cudnnTensorDescriptor_t made = nullptr;
  QANAT_CUDA(cudnnCreateTensorDescriptor(&made));
  TensorDescriptor descriptor(made);
  QANAT_CUDA(cudnnSetTensor4dDescriptor(made, CUDNN_TENSOR_NHWC, type, narrow_int(n), narrow_int(c), narrow_int(h),
                                        narrow_int(w)));
  return descriptor;
}

cudnnMathType_t math_of(Precision precision) {
  switch (precision) {
    case Precision::bf16:
      return CUDNN_TENSOR_OP_MATH;
    case Precision::tf32:
      return CUDNN_DEFAULT_MATH;
    case Precision::fp32:
      break;
  }
  return CUDNN_FMA_MATH;
}

// What was found for a shape in this process: timings differ from run to run, and equal trainers shall give equal bits.
template <class Choice>
class Choices {
 public:
  template <class Find>
  Choice of(Convolution::Kind kind, const ConvProblem& p, Find find) {
    int device = 0;
    QANAT_CUDA(cudaGetDevice(&device));
    const ConvLayout& l = p.layout;
    const Key key{device,         static_cast<int>(kind),
                  p.samples,      static_cast<int>(p.precision),
                  p.relu,         l.in_height,
                  l.in_width,     l.in_channels,
                  l.out_channels, l.kernel,
                  l.stride};
    const std::lock_guard lock(mutex_);
    const auto known = chosen_.find(key);
    if (known != chosen_.end()) return known->second;
    return chosen_.emplace(key, find()).first->second;
  }

 private:
  using Key = std::tuple<int, int, std::int64_t, int, bool, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                         std::int64_t, std::int64_t>;
  std::mutex mutex_;
  std::map<Key, Choice> chosen_;  // guarded by mutex_
};

std::string describe(const ConvProblem& p) {
  const ConvLayout& l = p.layout;
  return text("a convolution of ", p.samples, " samples [", l.in_height, ", ", l.in_width, ", ", l.in_channels, "] to ",
              l.out_channels, " channels, kernel ", l.kernel, ", stride ", l.stride, ", in ", name_of(p.precision));
}

// The fastest that ran and gives the same bits every time. `results` are sorted by time.
template <class Results>
int fastest_backward(const Results& results, int count, const ConvProblem& problem, const char* what) {
  for (int i = 0; i < count; ++i) {
    const auto& r = results[static_cast<std::size_t>(i)];
    if (r.status == CUDNN_STATUS_SUCCESS && r.determinism == CUDNN_DETERMINISTIC) return static_cast<int>(r.algo);
  }
  throw SystemError(text("cuDNN has no deterministic algorithm for the ", what, " of ", describe(problem)));
}

}  // namespace

struct Convolution::Descriptors {
  TensorDescriptor in, out, bias;
  Descriptor<cudnnFilterDescriptor_t, cudnnDestroyFilterDescriptor> weight;
  Descriptor<cudnnConvolutionDescriptor_t, cudnnDestroyConvolutionDescriptor> conv;
  Descriptor<cudnnActivationDescriptor_t, cudnnDestroyActivationDescriptor> activation;

  explicit Descriptors(const ConvProblem& p) {
    const cudnnDataType_t type =
        p.precision == Precision::bf16 ? LibraryType<__nv_bfloat16>::cudnn : LibraryType<float>::cudnn;
    const ConvLayout& l = p.layout;
    in = nhwc(type, p.samples, l.in_height, l.in_width, l.in_channels);
    out = nhwc(type, p.samples, l.out_height, l.out_width, l.out_channels);
    bias = nhwc(type, 1, 1, 1, l.out_channels);
    cudnnFilterDescriptor_t made_weight = nullptr;
    QANAT_CUDA(cudnnCreateFilterDescriptor(&made_weight));
    weight.reset(made_weight);
    QANAT_CUDA(cudnnSetFilter4dDescriptor(made_weight, type, CUDNN_TENSOR_NHWC, narrow_int(l.out_channels),
                                          narrow_int(l.in_channels), narrow_int(l.kernel), narrow_int(l.kernel)));
    cudnnConvolutionDescriptor_t made_conv = nullptr;
    QANAT_CUDA(cudnnCreateConvolutionDescriptor(&made_conv));
    conv.reset(made_conv);
    const int stride = narrow_int(l.stride);
    QANAT_CUDA(cudnnSetConvolution2dDescriptor(made_conv, 0, 0, stride, stride, 1, 1, CUDNN_CROSS_CORRELATION,
                                               CUDNN_DATA_FLOAT));
    QANAT_CUDA(cudnnSetConvolutionMathType(made_conv, math_of(p.precision)));
    cudnnActivationDescriptor_t made_activation = nullptr;
    QANAT_CUDA(cudnnCreateActivationDescriptor(&made_activation));
    activation.reset(made_activation);
    QANAT_CUDA(cudnnSetActivationDescriptor(made_activation, CUDNN_ACTIVATION_RELU, CUDNN_PROPAGATE_NAN, 0));
  }

  // out := relu(in * weight + bias) in one call.
  cudnnStatus_t run_fused(const Dnn& dnn, int algorithm, const ForwardBuffers& b) const {
    const float one = 1, zero = 0;
    return cudnnConvolutionBiasActivationForward(dnn, &one, in.get(), b.in, weight.get(), b.weight, conv.get(),
                                                 static_cast<cudnnConvolutionFwdAlgo_t>(algorithm), dnn.workspace(),
                                                 Dnn::workspace_bytes, &zero, out.get(), b.out, bias.get(), b.bias,
                                                 activation.get(), out.get(), b.out);
  }
};

// Of one call with bias and relu, and of the convolution with a pass of our own after it, each with every algorithm:
// the library's search times the bare convolution only, and the call with relu runs other kernels, some of them slow.
Convolution::Choice Convolution::fastest_forward(const Dnn& dnn, const ForwardBuffers& buffers) {
  cudaStream_t stream = nullptr;
  QANAT_CUDA(cudnnGetStream(dnn, &stream));
  Choice best{.algorithm = -1};
  float best_time = 0;
  for (const bool fused : {true, false}) {
    if (fused && !problem_.relu) continue;  // without an activation the call knows one algorithm only
    // Plain sums of products: no transforms, whose rounding is worse.
    for (const int algorithm : {CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
                                CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, CUDNN_CONVOLUTION_FWD_ALGO_GEMM}) {
      const auto launch = [&] {
        return (fused ? descriptors_->run_fused(dnn, algorithm, buffers) : run_plain(dnn, algorithm, buffers)) ==
               CUDNN_STATUS_SUCCESS;
      };
      const auto time = time_launches(stream, launch);
      if (!time || (best.algorithm >= 0 && *time >= best_time)) continue;
      best = {.algorithm = algorithm, .fused = fused};
      best_time = *time;
    }
  }
  if (best.algorithm < 0) throw SystemError(text("cuDNN has no algorithm for ", describe(problem_)));
  return best;
}

Dnn::Dnn(cudaStream_t stream) : workspace_(workspace_bytes) {
  cudnnHandle_t handle = nullptr;
  QANAT_CUDA(cudnnCreate(&handle));
  handle_.reset(handle);
  QANAT_CUDA(cudnnSetStream(handle, stream));
}

Convolution::~Convolution() = default;
Convolution::Convolution(Convolution&&) noexcept = default;

Convolution::Convolution(const Dnn& dnn, Kind kind, const ConvProblem& problem)
    : problem_(problem), descriptors_(std::make_unique<Descriptors>(problem)) {
  static Choices<Choice> choices;
  choice_ = choices.of(kind, problem, [&]() -> Choice {
    const Descriptors& d = *descriptors_;
    const ConvLayout& l = problem.layout;
    const std::size_t bytes = problem.precision == Precision::bf16 ? 2 : 4;
    const auto buffer = [&](std::int64_t elements) {
      return DeviceBuffer<std::byte>(static_cast<std::size_t>(elements) * bytes);
    };
    const auto in = buffer(problem.samples * l.in_height * l.in_width * l.in_channels);
    const auto out = buffer(problem.samples * l.out_height * l.out_width * l.out_channels);
    const auto weight = buffer(l.out_channels * l.kernel * l.kernel * l.in_channels);
    int count = 0;
    if (kind == Kind::forward) {
      const auto bias = buffer(l.out_channels);
      return fastest_forward(dnn, {in.data(), weight.data(), bias.data(), out.data()});
    }
    if (kind == Kind::data_gradient) {
      std::array<cudnnConvolutionBwdDataAlgoPerf_t, CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT> found;
      QANAT_CUDA(cudnnFindConvolutionBackwardDataAlgorithmEx(
          dnn, d.weight.get(), weight.data(), d.out.get(), out.data(), d.conv.get(), d.in.get(), in.data(),
          static_cast<int>(found.size()), &count, found.data(), dnn.workspace(), Dnn::workspace_bytes));
      return {.algorithm = fastest_backward(found, count, problem, "data gradient")};
    }
    std::array<cudnnConvolutionBwdFilterAlgoPerf_t, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_COUNT> found;
    QANAT_CUDA(cudnnFindConvolutionBackwardFilterAlgorithmEx(
        dnn, d.in.get(), in.data(), d.out.get(), out.data(), d.conv.get(), d.weight.get(), weight.data(),
        static_cast<int>(found.size()), &count, found.data(), dnn.workspace(), Dnn::workspace_bytes));
    return {.algorithm = fastest_backward(found, count, problem, "weight gradient")};
  });
}

cudnnStatus_t Convolution::run_plain(const Dnn& dnn, int algorithm, const ForwardBuffers& b) const {
  const Descriptors& d = *descriptors_;
  const float one = 1, zero = 0;
  const cudnnStatus_t status =
      cudnnConvolutionForward(dnn, &one, d.in.get(), b.in, d.weight.get(), b.weight, d.conv.get(),
                              static_cast<cudnnConvolutionFwdAlgo_t>(algorithm), dnn.workspace(), Dnn::workspace_bytes,
                              &zero, d.out.get(), b.out);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  cudaStream_t stream = nullptr;
  QANAT_CUDA(cudnnGetStream(dnn, &stream));
  const ConvLayout& l = problem_.layout;
  const std::int64_t pixels = problem_.samples * l.out_height * l.out_width;
  if (problem_.precision == Precision::bf16) {
    add_bias(stream, static_cast<__nv_bfloat16*>(b.out), static_cast<const __nv_bfloat16*>(b.bias), pixels,
             l.out_channels, problem_.relu);
  } else {
    add_bias(stream, static_cast<float*>(b.out), static_cast<const float*>(b.bias), pixels, l.out_channels,
             problem_.relu);
  }
  return status;
}

void Convolution::forward(const Dnn& dnn, const void* in, const void* weight, const void* bias, void* out) const {
  const ForwardBuffers buffers{in, weight, bias, out};
  QANAT_CUDA(choice_.fused ? descriptors_->run_fused(dnn, choice_.algorithm, buffers)
                           : run_plain(dnn, choice_.algorithm, buffers));
}

void Convolution::data_gradient(const Dnn& dnn, const void* weight, const void* out_delta, void* in_delta,
                                bool accumulate) const {
  const Descriptors& d = *descriptors_;
  const float one = 1, beta = accumulate ? 1.0f : 0.0f;
  QANAT_CUDA(cudnnConvolutionBackwardData(dnn, &one, d.weight.get(), weight, d.out.get(), out_delta, d.conv.get(),
                                          static_cast<cudnnConvolutionBwdDataAlgo_t>(choice_.algorithm),
                                          dnn.workspace(), Dnn::workspace_bytes, &beta, d.in.get(), in_delta));
}

void Convolution::weight_gradient(const Dnn& dnn, const void* in, const void* out_delta, void* weight_delta) const {
  const Descriptors& d = *descriptors_;
  const float one = 1, zero = 0;
  QANAT_CUDA(cudnnConvolutionBackwardFilter(dnn, &one, d.in.get(), in, d.out.get(), out_delta, d.conv.get(),
                                            static_cast<cudnnConvolutionBwdFilterAlgo_t>(choice_.algorithm),
                                            dnn.workspace(), Dnn::workspace_bytes, &zero, d.weight.get(),
                                            weight_delta));
}

}  // namespace qanat::nn::cuda
