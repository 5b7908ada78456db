// Matrix products on cuBLASLt, planned once: algorithm chosen by timing, then launched without any search.
//
// In row-major words:  D[m, n] = A[m, k] B[k, n] (+ D when accumulating), each possibly stored transposed. Sums are
// f32. Thread safety: one thread at a time.
#pragma once

#include <cublasLt.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "nn/cuda/device.h"
#include "nn/cuda/precision.h"

namespace qanat::nn::cuda {

// What is done to D beside the product. `bias` is [n].
enum class Epilogue {
  none,
  bias,         // D += bias
  bias_relu,    // D = max(0, D + bias)
  column_sums,  // bias := sums over k of B: with B the deltas of a layer, the gradient of its bias
};

struct GemmShape {
  std::int64_t m = 0, n = 0, k = 0;
  // Elements from one stored row to the next. A is stored [m, k], or [k, m] when transposed; B [k, n] or [n, k].
  std::int64_t a_row = 0, b_row = 0, d_row = 0;
  bool a_transposed = false;
  bool b_transposed = false;
  cudaDataType_t in = CUDA_R_32F;   // of A, B and the bias
  cudaDataType_t out = CUDA_R_32F;  // of D
  bool tf32 = false;                // with f32 operands: on the matrix units
  Epilogue epilogue = Epilogue::none;
  cudaDataType_t bias = CUDA_R_32F;  // of the bias, read or written
  bool accumulate = false;           // D += instead of D =
};

struct BlasDeleter {
  void operator()(cublasLtHandle_t handle) const { cublasLtDestroy(handle); }
};

// The library's handle and the scratch memory of one stream's products.
class Blas {
 public:
  static constexpr std::size_t workspace_bytes = 32u << 20;
  Blas();
  // Stands wherever the library wants its handle.
  operator cublasLtHandle_t() const { return handle_.get(); }  // NOLINT(google-explicit-constructor)
  [[nodiscard]] void* workspace() const { return workspace_.data(); }

 private:
  std::unique_ptr<cublasLtContext, BlasDeleter> handle_;
  DeviceBuffer<std::byte> workspace_;
};

class Gemm {
 public:
  // Times the library's proposals on scratch memory of the operands' size, on `stream`, the first time a shape comes
  // in this process; later plans of the shape take the same algorithm, so that equal trainers give equal bits. Only
  // deterministic algorithms are taken. Throws SystemError, naming the shape, when the library has none.
  Gemm(const Blas& blas, cudaStream_t stream, const GemmShape& shape);
  // The same, but nothing when the library has none: not every epilogue goes with every type.
  [[nodiscard]] static std::optional<Gemm> plan(const Blas& blas, cudaStream_t stream, const GemmShape& shape);

  // `bias` as the epilogue says, else null. Addresses are multiples of 16 bytes.
  void run(const Blas& blas, cudaStream_t stream, const void* a, const void* b, void* d, void* bias = nullptr) const;

  [[nodiscard]] const GemmShape& shape() const { return shape_; }

 private:
  Gemm(const GemmShape& shape, const cublasLtMatmulAlgo_t& algorithm) : shape_(shape), algorithm_(algorithm) {}

  GemmShape shape_;
  cublasLtMatmulAlgo_t algorithm_ = {};
};

}  // namespace qanat::nn::cuda
