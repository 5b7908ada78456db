#include "nn/cuda/check.h"

#include "core/error.h"

namespace qanat::nn::cuda {

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  throw SystemError(text("CUDA: ", call, ": ", cudaGetErrorName(status), " (", static_cast<int>(status), "), ",
                         cudaGetErrorString(status)));
}

void check(cudnnStatus_t status, const char* call) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  throw SystemError(text("cuDNN: ", call, ": ", cudnnGetErrorString(status), " (", static_cast<int>(status), ")"));
}

void check(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw SystemError(text("cuBLASLt: ", call, ": ", cublasLtGetStatusName(status), " (", static_cast<int>(status), "), ",
                         cublasLtGetStatusString(status)));
}

}  // namespace qanat::nn::cuda
