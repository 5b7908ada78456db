// Errors of CUDA, cuDNN and cuBLASLt as exceptions that name the call, the code and its text.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>
#include <cudnn.h>

namespace qanat::nn::cuda {

// Each throws SystemError unless the status is success.
void check(cudaError_t status, const char* call);
void check(cudnnStatus_t status, const char* call);
void check(cublasStatus_t status, const char* call);

}  // namespace qanat::nn::cuda

#define QANAT_CUDA(call) ::qanat::nn::cuda::check((call), #call)
// After a kernel's launch: what the launch itself reports.
#define QANAT_LAUNCHED(kernel) ::qanat::nn::cuda::check(cudaGetLastError(), kernel)
