// A library of another source tree, as far as the loader can see: the right entry point, another interface.
#include "nn/cuda_library.h"

extern "C" __attribute__((visibility("default"))) const qanat::nn::CudaLibrary* qanat_cuda_library() {
  static const qanat::nn::CudaLibrary library{.abi = "qanat 0.0.0 another tree"};
  return &library;
}
