#include "nn/cuda/device.h"

#include "core/error.h"

namespace qanat::nn::cuda {

Device::Device(int index) : index_(index) {
  int count = 0;
  QANAT_CUDA(cudaGetDeviceCount(&count));
  if (index < 0 || index >= count)
    throw ConfigError(text("device cuda:", index, ": this machine has ", count, " GPU(s)"));
  use();
  int major = 0, minor = 0;
  QANAT_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index));
  QANAT_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index));
  QANAT_CUDA(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, index));
  capability_ = 10 * major + minor;
}

Stream::Stream() {
  cudaStream_t stream = nullptr;
  QANAT_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  stream_.reset(stream);
}

Event::Event(Kind kind) {
  cudaEvent_t event = nullptr;
  QANAT_CUDA(cudaEventCreateWithFlags(&event, kind == Kind::timed ? cudaEventDefault : cudaEventDisableTiming));
  event_.reset(event);
}

float Event::since(const Event& start) const {
  float milliseconds = 0;
  QANAT_CUDA(cudaEventElapsedTime(&milliseconds, start, *this));
  return milliseconds;
}

Graph::Graph(cudaGraph_t recorded) {
  cudaGraphExec_t graph = nullptr;
  const cudaError_t made = cudaGraphInstantiate(&graph, recorded, 0);
  cudaGraphDestroy(recorded);
  check(made, "cudaGraphInstantiate");
  graph_.reset(graph);
}

}  // namespace qanat::nn::cuda
