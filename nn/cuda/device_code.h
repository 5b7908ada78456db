// Small device functions that the kernels share. For files compiled as CUDA.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <climits>
#include <cstdint>

namespace qanat::nn::cuda {

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
template <class T>
__device__ T narrow(float x);
template <>
__device__ inline float narrow<float>(float x) {
  return x;
}
template <>
__device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// Eight activations as one or two 16-byte accesses.
template <class T>
struct alignas(16) Eight {
  T at[8];
};

// Sum over the block in every thread; the order of additions is fixed. `scratch`: [32] shared.
template <class Real>
__device__ Real block_sum(Real value, Real* scratch) {
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
  __syncthreads();  // scratch may still be read from a sum before
  if (lane == 0) scratch[warp] = value;
  __syncthreads();
  value = lane < (blockDim.x + 31) / 32 ? scratch[lane] : Real(0);
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
  return value;
}

// True in all threads of the block that comes here last of the grid: it sees what the others wrote before. The counter
// is 0 again afterwards.
__device__ inline bool last_block(unsigned* counter) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(counter, 1u) + 1 == gridDim.x * gridDim.y;
    if (last) *counter = 0;
  }
  __syncthreads();
  if (last) __threadfence();
  return last;
}

// The first of the largest values among the allowed actions, as masked_argmax(); one warp works on it together.
__device__ inline std::int64_t warp_argmax(const float* q, const std::uint8_t* mask, std::int64_t actions) {
  float best = 0;
  int at = INT_MAX;  // none yet
  const auto better = [&](float value, int action) {
    if (action == INT_MAX) return false;
    return at == INT_MAX || value > best || (!(value < best) && action < at);
  };
  const auto lane = static_cast<int>(threadIdx.x % 32);
  for (int a = lane; a < actions; a += 32) {
    if ((mask == nullptr || mask[a] != 0) && better(q[a], a)) {
      best = q[a];
      at = a;
    }
  }
  for (int step = 16; step > 0; step /= 2) {
    const float value = __shfl_xor_sync(~0u, best, step);
    const int action = __shfl_xor_sync(~0u, at, step);
    if (better(value, action)) {
      best = value;
      at = action;
    }
  }
  return at == INT_MAX ? 0 : at;
}

inline unsigned blocks_for(std::int64_t count, std::int64_t threads) {
  return static_cast<unsigned>((count + threads - 1) / threads);
}

}  // namespace qanat::nn::cuda
