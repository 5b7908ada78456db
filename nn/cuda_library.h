// The contract between the program and libqanat_cuda.so, which it opens at run time (nn/cuda_loader.h): one function
// with C linkage that leads to the rest.
//
// Both sides are C++ of one source tree and one compiler. `abi` tells whether they are: it is made by the build from
// the headers that both include, and is looked at before anything else of the structure.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "nn/backend.h"

namespace qanat::nn {

struct GpuInfo {
  std::string name;
  int capability = 0;  // 90: compute capability 9.0
  std::size_t memory_bytes = 0;
  std::string problem;  // why it cannot be used; empty when it can
};

struct CudaReport {
  std::string built_with;  // toolkit and cuDNN whose headers were used, and the architectures
  std::string driver;      // the newest CUDA version it serves; "none" without a driver
  std::string cudnn;       // of the libraries that were loaded
  std::string cublas;
  std::vector<GpuInfo> gpus;  // in the order of their numbers
  std::string problem;        // why no GPU can be used; empty when one can
};

struct CudaLibrary {
  const char* abi = nullptr;
  // Never throws.
  CudaReport (*report)() = nullptr;
  // Throws ConfigError when there is no such GPU, SystemError when it refuses.
  std::unique_ptr<Backend> (*make_backend)(int gpu) = nullptr;
};

inline constexpr const char* cuda_library_symbol = "qanat_cuda_library";
using CudaLibraryFunction = const CudaLibrary*();

}  // namespace qanat::nn
