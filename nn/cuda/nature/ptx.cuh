// The PTX instructions that the fused kernels use beside wgmma, a function each (PTX ISA, sm_90).
//
// Shared memory has two readers and writers here: threads (the generic proxy), and bulk copies and tensor cores (the
// asynchronous proxy). What threads wrote is visible to the latter only after publish_shared() and a barrier.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace qanat::nn::nature {

using Address = std::uint32_t;  // bytes, in the block's window of shared memory

__device__ __forceinline__ Address shared_address(const void* p) {
  return static_cast<Address>(__cvta_generic_to_shared(p));
}

__device__ __forceinline__ void publish_shared() { asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory"); }

// A barrier for 128 threads, one warpgroup. `id` 1 to 15; 0 is __syncthreads().
__device__ __forceinline__ void sync_warpgroup(int id) { asm volatile("bar.sync %0, 128;\n" ::"r"(id) : "memory"); }

// mbarriers: eight bytes of shared memory that complete a phase when `arrivals` threads have arrived and all bytes
// announced by expect() have landed. Phases alternate in parity: 0, 1, 0, ...
__device__ __forceinline__ void mbarrier_init(Address barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(arrivals) : "memory");
}
// After the inits, by the thread that did them, before a barrier of the block.
__device__ __forceinline__ void mbarrier_publish() {
  asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
  publish_shared();
}
__device__ __forceinline__ void mbarrier_expect(Address barrier, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ __forceinline__ void mbarrier_arrive(Address barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void mbarrier_wait(Address barrier, std::uint32_t parity) {
  std::uint32_t done = 0;
  do {
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}\n"
                 : "=r"(done)
                 : "r"(barrier), "r"(parity)
                 : "memory");
  } while (done == 0);
}

// Bulk copies, by one thread: addresses and sizes are multiples of 16 bytes.
__device__ __forceinline__ void copy_in(Address to, const void* from, std::uint32_t bytes, Address barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::"r"(to),
               "l"(from), "r"(bytes), "r"(barrier)
               : "memory");
}
__device__ __forceinline__ void copy_out(void* to, Address from, std::uint32_t bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;\ncp.async.bulk.commit_group;\n" ::"l"(to),
               "r"(from), "r"(bytes)
               : "memory");
}
// Until this thread's copies out have read their source: then it may be written again, or the block may end.
__device__ __forceinline__ void wait_copied_out() { asm volatile("cp.async.bulk.wait_group.read 0;\n" ::: "memory"); }

__device__ __forceinline__ std::uint32_t load_shared(Address a) {
  std::uint32_t v = 0;
  asm volatile("ld.shared.u32 %0, [%1];\n" : "=r"(v) : "r"(a));
  return v;
}

// 8x8 matrices of two-byte elements between a warp's accumulator fragments and rows of 16 bytes; lane i gives row
// i % 8 of matrix i / 8. `_t`: transposed.
__device__ __forceinline__ void store_matrices(Address a, std::uint32_t r0, std::uint32_t r1, std::uint32_t r2,
                                               std::uint32_t r3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(a), "r"(r0), "r"(r1), "r"(r2),
               "r"(r3)
               : "memory");
}
__device__ __forceinline__ void store_matrices(Address a, std::uint32_t r0, std::uint32_t r1) {
  asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};\n" ::"r"(a), "r"(r0), "r"(r1) : "memory");
}
__device__ __forceinline__ void store_matrices_t(Address a, std::uint32_t r0, std::uint32_t r1, std::uint32_t r2,
                                                 std::uint32_t r3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(a), "r"(r0), "r"(r1),
               "r"(r2), "r"(r3)
               : "memory");
}
__device__ __forceinline__ void load_matrices_t(Address a, std::uint32_t& r0, std::uint32_t& r1, std::uint32_t& r2,
                                                std::uint32_t& r3) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r0), "=r"(r1), "=r"(r2), "=r"(r3)
               : "r"(a)
               : "memory");
}

__device__ __forceinline__ std::uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const std::uint32_t&>(v);
}
__device__ __forceinline__ std::uint32_t pack_half(float low, float high) {
  const __half2 v = __floats2half2_rn(low, high);
  return reinterpret_cast<const std::uint32_t&>(v);
}
__device__ __forceinline__ std::uint32_t pack_relu(float low, float high) {
  // Not fmaxf: it would turn a NaN into 0 and hide a broken update.
  const __nv_bfloat162 v = __hmax2_nan(__floats2bfloat162_rn(low, high), __floats2bfloat162_rn(0, 0));
  return reinterpret_cast<const std::uint32_t&>(v);
}

// Four pixels of a frame, one byte each, as two pairs of fp16 1024 + pixel: 0x6400 is 1024, and one ulp there is 1.
constexpr std::uint32_t half_1024 = 0x64646464;
__device__ __forceinline__ std::uint32_t first_pixels(std::uint32_t four) {
  return __byte_perm(four, half_1024, 0x4140);
}
__device__ __forceinline__ std::uint32_t last_pixels(std::uint32_t four) {
  return __byte_perm(four, half_1024, 0x4342);
}

// Two gradients where the two activations are not zero (after a relu: where they were positive), else zero.
__device__ __forceinline__ std::uint32_t where_positive(std::uint32_t activations, std::uint32_t gradients) {
  const std::uint32_t low = (activations & 0xffffu) != 0 ? gradients & 0xffffu : 0u;
  const std::uint32_t high = (activations >> 16) != 0 ? gradients & 0xffff0000u : 0u;
  return low | high;
}

// A thread's place in its block.
struct Place {
  int group;   // warpgroup
  int thread;  // in the warpgroup
  int warp;    // in the warpgroup
  int lane;
  int quad_row;     // lane / 4: the row of a fragment
  int quad_column;  // lane % 4
  __device__ explicit Place(unsigned index)
      : group(static_cast<int>(index) >> 7),
        thread(static_cast<int>(index) & 127),
        warp(thread >> 5),
        lane(thread & 31),
        quad_row(lane >> 2),
        quad_column(lane & 3) {}
};

}  // namespace qanat::nn::nature
