// The way into libqanat_cuda.so: what it can do on this machine, and backends for its GPUs.
#include <algorithm>

#include "core/error.h"
#include "nn/cuda/architectures.h"
#include "nn/cuda/check.h"
#include "nn/cuda/device.h"
#include "nn/cuda/nature/trainer.h"
#include "nn/cuda/ops.h"
#include "nn/cuda/precision.h"
#include "nn/cuda/sequence_ops.h"
#include "nn/cuda_library.h"
#include "nn/engine.h"

namespace qanat::nn::cuda {
namespace {

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(int gpu) : device_(gpu) {}
  std::string name() const override { return text("cuda:", device_.index()); }

  using Backend::inference;
  std::unique_ptr<Inference> inference(const NetworkSpec& spec, std::int64_t max_batch,
                                       const std::string& precision) override {
    check_max_batch(max_batch);
    const Precision chosen = precision == "auto" ? Precision::fp32 : precision_of(precision, spec);
    if (chosen == Precision::bf16) {
      return std::make_unique<EngineInference<CudaOps<__nv_bfloat16>>>(spec, max_batch, device_, chosen);
    }
    return std::make_unique<EngineInference<CudaOps<float>>>(spec, max_batch, device_, chosen);
  }

  std::unique_ptr<QTrainer> trainer(const NetworkSpec& spec, const TrainerOptions& options) override {
    check_options(options);
    const Precision precision = precision_of(options.precision, spec);
    if (options.kernels != "general") {
      const std::string obstacle = nature::obstacle(spec, options, device_);
      if (obstacle.empty()) return nature::make_trainer(spec, options, device_);
      if (options.kernels == "fused") throw ConfigError(obstacle + "; with kernels: auto the general ones are taken");
    }
    if (precision == Precision::bf16) {
      return std::make_unique<EngineTrainer<CudaOps<__nv_bfloat16>>>(spec, options, device_, precision);
    }
    return std::make_unique<EngineTrainer<CudaOps<float>>>(spec, options, device_, precision);
  }

  std::unique_ptr<SequenceTrainer> sequence_trainer(const NetworkSpec& spec, const SequenceOptions& options) override {
    check_sequence_options(spec, options);
    const Precision precision = precision_of(options.update.precision, spec);
    if (precision == Precision::bf16) {
      return std::make_unique<EngineSequenceTrainer<CudaSequenceOps<__nv_bfloat16>>>(spec, options, device_, precision);
    }
    return std::make_unique<EngineSequenceTrainer<CudaSequenceOps<float>>>(spec, options, device_, precision);
  }

 private:
  const Device device_;
};

std::string version(std::size_t number, std::size_t major, std::size_t minor) {
  return text(number / major, '.', number % major / minor);
}

constexpr int oldest = 80;  // bf16 matrix products

GpuInfo gpu_info(int gpu) {
  cudaDeviceProp properties{};
  if (const auto status = cudaGetDeviceProperties(&properties, gpu); status != cudaSuccess)
    return {.name = "unknown", .problem = text("CUDA tells nothing of it: ", cudaGetErrorString(status))};
  GpuInfo out{.name = properties.name,
              .capability = 10 * properties.major + properties.minor,
              .memory_bytes = properties.totalGlobalMem};
  const auto seen = "compute capability " + version(static_cast<std::size_t>(out.capability), 10, 1);
  if (out.capability < oldest) {
    out.problem = seen + ", wanted " + version(oldest, 10, 1) + " or above";
  } else if (!built_for(QANAT_CUDA_BUILT_FOR, out.capability)) {
    out.problem = text(seen,
                       ", and this build is for " QANAT_CUDA_BUILT_FOR
                       "; build on this machine, or with -DQANAT_CUDA_ARCHITECTURES=",
                       out.capability);
  }
  return out;
}

CudaReport report() {
  CudaReport out;
  out.built_with = QANAT_CUDA_BUILT_WITH;
  out.cudnn = version(cudnnGetVersion(), 10000, 100) + text('.', cudnnGetVersion() % 100);
  out.cublas = version(cublasLtGetVersion(), 10000, 100);
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    out.driver = "none";
    out.problem = "no NVIDIA driver is installed (libcuda.so.1 was not found); install one for CUDA " +
                  version(CUDART_VERSION, 1000, 10);
    return out;
  }
  out.driver = version(static_cast<std::size_t>(driver), 1000, 10);
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    out.problem = text("the driver (CUDA ", out.driver, ") offers no GPU: ", cudaGetErrorString(status),
                       status == cudaErrorInsufficientDriver ? "; install a newer driver" : "; see nvidia-smi");
    return out;
  }
  for (int gpu = 0; gpu < count; ++gpu) out.gpus.push_back(gpu_info(gpu));
  const auto serves = [](const GpuInfo& gpu) { return gpu.problem.empty(); };
  if (std::none_of(out.gpus.begin(), out.gpus.end(), serves)) {
    out.problem = "no GPU can be used";
    for (int gpu = 0; gpu < count; ++gpu) {
      const auto& info = out.gpus[static_cast<std::size_t>(gpu)];
      out.problem += text("; cuda:", gpu, " (", info.name, "): ", info.problem);
    }
  }
  return out;
}

std::unique_ptr<Backend> make_cuda_backend(int gpu) { return std::make_unique<CudaBackend>(gpu); }

}  // namespace
}  // namespace qanat::nn::cuda

extern "C" __attribute__((visibility("default"))) const qanat::nn::CudaLibrary* qanat_cuda_library() {
  static const qanat::nn::CudaLibrary library{
      .abi = QANAT_CUDA_ABI, .report = qanat::nn::cuda::report, .make_backend = qanat::nn::cuda::make_cuda_backend};
  return &library;
}
