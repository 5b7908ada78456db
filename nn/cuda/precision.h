// In which numbers a network is computed on a device. Master weights, moments, gradients of weights and accumulators
// are f32 in all of them.
#pragma once

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cudnn.h>

#include <string_view>

#include "nn/network.h"

namespace qanat::nn::cuda {

enum class Precision {
  bf16,  // activations, deltas and the weights that products read
  tf32,  // all f32; the matrix units read 10 bits of mantissa
  fp32,  // all f32, no TF32 anywhere
};

// "bf16" | "tf32" | "fp32"; "auto" is bf16 for a network with convolutions and tf32 for others. Pixels are exact in
// bf16, and convolutions are up to three times as fast in it; real numbers of any scale keep 11 bits rather than 8 in
// tf32, which costs a small network's update a tenth to a third of its time (docs/benchmarks.md has the table). Throws
// ConfigError for any other word.
[[nodiscard]] Precision precision_of(std::string_view word, const NetworkSpec& spec);
[[nodiscard]] const char* name_of(Precision precision);

// How the libraries call the type that activations and products' operands have.
template <class T>
struct LibraryType;
template <>
struct LibraryType<__nv_bfloat16> {
  static constexpr cudaDataType_t cublas = CUDA_R_16BF;
  static constexpr cudnnDataType_t cudnn = CUDNN_DATA_BFLOAT16;
};
template <>
struct LibraryType<float> {
  static constexpr cudaDataType_t cublas = CUDA_R_32F;
  static constexpr cudnnDataType_t cudnn = CUDNN_DATA_FLOAT;
};

}  // namespace qanat::nn::cuda
