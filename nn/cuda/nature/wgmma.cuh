// wgmma: a warpgroup's matrix product D[64, N] += A[64, 16] B[16, N] with D in registers (PTX ISA, sm_90a), for the
// shapes that the fused kernels use.
//
// A thread's accumulators: element 4 j + 2 h + i of the array is D[16 warp + lane / 4 + 8 h][8 j + 2 (lane % 4) + i].
// Overloads are chosen by the array's length, N / 2. `accumulate` false starts from zero.
#pragma once

#include <cstdint>

#include "nn/cuda/nature/ptx.cuh"

namespace qanat::nn::nature {

// An operand in shared memory without swizzle: core matrices of 8 rows of 16 bytes. For K-major operands `k_step` is
// the distance in bytes between core matrices along K and `row_step` along M or N; for transposed ones the other way
// round. Adding n to a descriptor moves it by 16 n bytes.
__device__ __forceinline__ std::uint64_t describe_operand(Address at, std::uint32_t k_step, std::uint32_t row_step) {
  return static_cast<std::uint64_t>((at >> 4) & 0x3fff) | (static_cast<std::uint64_t>((k_step >> 4) & 0x3fff) << 16) |
         (static_cast<std::uint64_t>((row_step >> 4) & 0x3fff) << 32);
}

__device__ __forceinline__ void mma_begin() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void mma_commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
// Until at most `Pending` committed groups are unfinished.
template <int Pending>
__device__ __forceinline__ void mma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(Pending) : "memory");
}
// Keeps the compiler from reading accumulators before the wait above it.
template <int N>
__device__ __forceinline__ void settle(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

#define QANAT_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define QANAT_D16(i) QANAT_D4(i), QANAT_D4(i + 4), QANAT_D4(i + 8), QANAT_D4(i + 12)
#define QANAT_R0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define QANAT_R16 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define QANAT_R32 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43"
#define QANAT_R44 "%44, %45, %46, %47"
#define QANAT_R48 "%48, %49, %50, %51"
#define QANAT_R52 "%52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define QANAT_WGMMA "wgmma.mma_async.sync.aligned."

// A: fp16 in registers, a fragment of mma.m16n8k16 a warp. B: fp16, K-major in shared memory.
__device__ __forceinline__ void mma(float (&d)[16], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                    std::uint32_t a3, std::uint64_t b, bool accumulate) {
  asm volatile("{.reg .pred p; setp.ne.b32 p, %21, 0;\n" QANAT_WGMMA "m64n32k16.f32.f16.f16 {" QANAT_R0
               "}, {%16, %17, %18, %19}, %20, p, 1, 1, 0;}\n"
               : QANAT_D16(0)
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b), "r"(static_cast<int>(accumulate)));
}

// bf16, both K-major in shared memory: N = 64, 88, 96, 104.
__device__ __forceinline__ void mma(float (&d)[32], std::uint64_t a, std::uint64_t b, bool accumulate) {
  asm volatile("{.reg .pred p; setp.ne.b32 p, %34, 0;\n" QANAT_WGMMA "m64n64k16.f32.bf16.bf16 {" QANAT_R0 ", " QANAT_R16
               "}, %32, %33, p, 1, 1, 0, 0;}\n"
               : QANAT_D16(0), QANAT_D16(16)
               : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)));
}
__device__ __forceinline__ void mma(float (&d)[44], std::uint64_t a, std::uint64_t b, bool accumulate) {
  asm volatile("{.reg .pred p; setp.ne.b32 p, %46, 0;\n" QANAT_WGMMA "m64n88k16.f32.bf16.bf16 {" QANAT_R0 ", " QANAT_R16
               ", " QANAT_R32 "}, %44, %45, p, 1, 1, 0, 0;}\n"
               : QANAT_D16(0), QANAT_D16(16), QANAT_D4(32), QANAT_D4(36), QANAT_D4(40)
               : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)));
}
__device__ __forceinline__ void mma(float (&d)[48], std::uint64_t a, std::uint64_t b, bool accumulate) {
  asm volatile("{.reg .pred p; setp.ne.b32 p, %50, 0;\n" QANAT_WGMMA "m64n96k16.f32.bf16.bf16 {" QANAT_R0 ", " QANAT_R16
               ", " QANAT_R32 ", " QANAT_R44 "}, %48, %49, p, 1, 1, 0, 0;}\n"
               : QANAT_D16(0), QANAT_D16(16), QANAT_D16(32)
               : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)));
}
__device__ __forceinline__ void mma(float (&d)[52], std::uint64_t a, std::uint64_t b, bool accumulate) {
  asm volatile("{.reg .pred p; setp.ne.b32 p, %54, 0;\n" QANAT_WGMMA "m64n104k16.f32.bf16.bf16 {" QANAT_R0
               ", " QANAT_R16 ", " QANAT_R32 ", " QANAT_R44 ", " QANAT_R48 "}, %52, %53, p, 1, 1, 0, 0;}\n"
               : QANAT_D16(0), QANAT_D16(16), QANAT_D16(32), QANAT_D4(48)
               : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)));
}

// bf16, both with M or N contiguous in shared memory ("transposed"): N = 64, 128. Adds to what d holds.
__device__ __forceinline__ void mma_transposed(float (&d)[32], std::uint64_t a, std::uint64_t b) {
  asm volatile("{.reg .pred p; setp.eq.b32 p, 0, 0;\n" QANAT_WGMMA "m64n64k16.f32.bf16.bf16 {" QANAT_R0 ", " QANAT_R16
               "}, %32, %33, p, 1, 1, 1, 1;}\n"
               : QANAT_D16(0), QANAT_D16(16)
               : "l"(a), "l"(b));
}
__device__ __forceinline__ void mma_transposed(float (&d)[64], std::uint64_t a, std::uint64_t b) {
  asm volatile("{.reg .pred p; setp.eq.b32 p, 0, 0;\n" QANAT_WGMMA "m64n128k16.f32.bf16.bf16 {" QANAT_R0 ", " QANAT_R16
               ", " QANAT_R32 ", " QANAT_R44 ", " QANAT_R48 ", " QANAT_R52 "}, %64, %65, p, 1, 1, 1, 1;}\n"
               : QANAT_D16(0), QANAT_D16(16), QANAT_D16(32), QANAT_D16(48)
               : "l"(a), "l"(b));
}

#undef QANAT_D4
#undef QANAT_D16
#undef QANAT_R0
#undef QANAT_R16
#undef QANAT_R32
#undef QANAT_R44
#undef QANAT_R48
#undef QANAT_R52
#undef QANAT_WGMMA

}  // namespace qanat::nn::nature
