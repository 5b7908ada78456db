// Convolutions on cuDNN's classic calls (which a runtime older than the headers serves too), NHWC, planned once:
// algorithms are found by timing the first time a shape comes in this process, then called without any search.
//
// Thread safety: one thread at a time.
#pragma once

#include <cudnn.h>

#include <cstddef>
#include <memory>

#include "nn/cuda/device.h"
#include "nn/cuda/layout.h"
#include "nn/cuda/precision.h"

namespace qanat::nn::cuda {

struct DnnDeleter {
  void operator()(cudnnHandle_t handle) const { cudnnDestroy(handle); }
};

// The library's handle on one stream, and the scratch memory of that stream's convolutions.
class Dnn {
 public:
  static constexpr std::size_t workspace_bytes = 128u << 20;
  explicit Dnn(cudaStream_t stream);
  // Stands wherever the library wants its handle.
  operator cudnnHandle_t() const { return handle_.get(); }  // NOLINT(google-explicit-constructor)
  [[nodiscard]] void* workspace() const { return workspace_.data(); }

 private:
  std::unique_ptr<cudnnContext, DnnDeleter> handle_;
  DeviceBuffer<std::byte> workspace_;
};

struct ConvProblem {
  ConvLayout layout;
  std::int64_t samples = 0;
  Precision precision = Precision::bf16;
  bool relu = false;  // forward: relu after the bias
};

// Buffers: in [samples, in_height, in_width, in_channels], weight [out_channels, kernel, kernel, in_channels],
// bias [out_channels], out [samples, out_height, out_width, out_channels], all of the precision's type.
class Convolution {
 public:
  enum class Kind { forward, data_gradient, weight_gradient };

  // Throws SystemError, naming the shape, when cuDNN has no deterministic algorithm.
  Convolution(const Dnn& dnn, Kind kind, const ConvProblem& problem);
  ~Convolution();
  Convolution(Convolution&&) noexcept;

  // out := [relu] (in * weight + bias).
  void forward(const Dnn& dnn, const void* in, const void* weight, const void* bias, void* out) const;
  void data_gradient(const Dnn& dnn, const void* weight, const void* out_delta, void* in_delta, bool accumulate) const;
  void weight_gradient(const Dnn& dnn, const void* in, const void* out_delta, void* weight_delta) const;

 private:
  struct Descriptors;
  struct ForwardBuffers {
    const void* in;
    const void* weight;
    const void* bias;
    void* out;
  };
  struct Choice {
    int algorithm = 0;
    bool fused = false;  // forward: bias and relu are part of the library's call
  };
  Choice fastest_forward(const Dnn& dnn, const ForwardBuffers& buffers);
  cudnnStatus_t run_plain(const Dnn& dnn, int algorithm, const ForwardBuffers& buffers) const;

  ConvProblem problem_;
  std::unique_ptr<Descriptors> descriptors_;
  Choice choice_;
};

}  // namespace qanat::nn::cuda
