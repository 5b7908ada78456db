// The torso backward: gradients with respect to what enters each relu, from the features down to conv1's output.
//
// A block has two warpgroups in a pipeline, each with its layer's weights in shared memory for the whole launch:
//   the first    masks the features' gradient by conv3's relu (delta 3), takes it through conv3 and masks by conv2's
//                relu (delta 2): channels on M, the 81 pixels of image 2 on N (88), K = 9 taps x 64 channels
//   the second   takes delta 2 through conv2 and masks by conv1's relu (delta 1): [parity and channel] on M (128, two
//                halves), the 100 pixels of the 10-wide grid on N (104), K = 4 taps x 64 channels
// Delta 2 has two buffers between them. A transposed convolution reads the delta images backwards: a tap is a negative
// shift, which is why those images begin with zero pixels. All three deltas are written for the weight gradients.
#include <algorithm>

#include "nn/cuda/nature/kernels.h"
#include "nn/cuda/nature/wgmma.cuh"

namespace qanat::nn::nature {
namespace {

constexpr int at_weights2 = packed3_bytes;
constexpr int at_delta3 = packed_back_bytes;
constexpr int at_delta2 = at_delta3 + delta3_bytes;
constexpr int at_image1 = at_delta2 + 2 * delta2_bytes;  // later delta 1, which is larger
constexpr int at_image2 = at_image1 + delta1_bytes;
constexpr int at_features = at_image2 + image2_bytes;  // and their gradient
constexpr int at_barriers = at_features + 2 * image3_bytes;
constexpr int at_dump = at_barriers + 96;
constexpr int at_scratch = at_dump + 32;
constexpr int shared_bytes = at_scratch + 16;
static_assert(shared_bytes <= 232448, "what a block can have on sm_90");
static_assert(delta1_bytes >= image1_bytes);

struct Barriers {
  Address weights3, weights2, features, image2, image1, full, empty;  // full and empty: one for each delta 2
  __device__ explicit Barriers(Address at)
      : weights3(at),
        weights2(at + 8),
        features(at + 16),
        image2(at + 24),
        image1(at + 32),
        full(at + 40),
        empty(at + 56) {}
};
constexpr int barrier_count = 9;

// Masks the features' gradient by the features and lays it out on the grid that conv3's transpose reads.
__device__ __forceinline__ void mask_features(std::uint8_t* shared, const Place& me) {
  for (int i = me.thread; i < features / 8; i += 128) {
    const uint4 f = *reinterpret_cast<const uint4*>(shared + at_features + i * pixel_bytes);
    uint4 d = *reinterpret_cast<const uint4*>(shared + at_features + image3_bytes + i * pixel_bytes);
    d.x = where_positive(f.x, d.x);
    d.y = where_positive(f.y, d.y);
    d.z = where_positive(f.z, d.z);
    d.w = where_positive(f.w, d.w);
    const int plane = i / 49;
    const int pixel = i - plane * 49;
    const int y = pixel / 7;
    const int x = pixel - y * 7;
    *reinterpret_cast<uint4*>(shared + at_delta3 + plane * delta_pitch3 + (lead3 + y * 9 + x) * pixel_bytes) = d;
  }
}

__device__ __forceinline__ void through_conv3(const TorsoDeltas& args, std::uint8_t* shared, Address base,
                                              const Barriers& barriers, const Place& me) {
  const bool leads = me.thread == 0;
  const auto fetch_features = [&](int sample) {
    const std::size_t at = static_cast<std::size_t>(sample) * image3_bytes;
    mbarrier_expect(barriers.features, 2 * image3_bytes);
    copy_in(base + at_features, args.features + at, image3_bytes, barriers.features);
    copy_in(base + at_features + image3_bytes, args.feature_deltas + at, image3_bytes, barriers.features);
  };
  const auto fetch_image2 = [&](int sample) {
    mbarrier_expect(barriers.image2, image2_bytes);
    copy_in(base + at_image2, args.image2 + static_cast<std::size_t>(sample) * image2_bytes, image2_bytes,
            barriers.image2);
  };
  int sample = static_cast<int>(blockIdx.x);
  if (leads) {
    if (sample < args.samples) fetch_features(sample);
    mbarrier_expect(barriers.weights3, packed3_bytes);
    copy_in(base, args.packed_back, packed3_bytes, barriers.weights3);
    if (sample < args.samples) fetch_image2(sample);
  }
  const std::uint64_t weights = describe_operand(base, 1024, 128);
  const std::uint64_t operand = describe_operand(base + at_delta3 + lead3 * pixel_bytes, delta_pitch3, 128);
  for (int turn = 0; sample < args.samples; sample += static_cast<int>(gridDim.x), ++turn) {
    const int next = sample + static_cast<int>(gridDim.x);
    const int buffer = turn & 1;
    const Address delta2 = base + at_delta2 + buffer * delta2_bytes;
    mbarrier_wait(barriers.features, turn & 1);
    if (turn > 0) {
      if (leads) wait_copied_out();
      sync_warpgroup(1);
    }
    mask_features(shared, me);
    publish_shared();
    sync_warpgroup(1);
    if (leads) {
      copy_out(args.delta3 + static_cast<std::size_t>(sample) * delta3_bytes, base + at_delta3, delta3_bytes);
      if (next < args.samples) fetch_features(next);
    }
    if (turn == 0) mbarrier_wait(barriers.weights3, 0);
    float d[44];
    mma_begin();
#pragma unroll
    for (int k = 0; k < 36; ++k) {
      const int tap = k >> 2;
      const int shift = (tap / 3) * 9 + tap % 3;
      mma(d, weights + static_cast<std::uint64_t>(k * 128),
          operand + static_cast<std::uint64_t>((k & 3) * (2 * delta_pitch3 / 16) - shift), k != 0);
    }
    mma_commit();
    // While the tensor cores work: image 2 in the accumulators' arrangement, to mask them by.
    mbarrier_wait(barriers.image2, turn & 1);
    std::uint32_t image[12][2];
#pragma unroll
    for (int j = 0; j < 12; j += 2) {
      const int n = (j + ((me.lane >> 4) & 1)) * 8 + (me.lane & 7);
      const int plane = me.warp * 2 + ((me.lane >> 3) & 1);
      load_matrices_t(base + at_image2 + plane * pitch2 + min(n, 80) * pixel_bytes, image[j][0], image[j][1],
                      image[j + 1][0], image[j + 1][1]);
    }
    if (turn >= 2) mbarrier_wait(barriers.empty + 8 * buffer, ((turn >> 1) - 1) & 1);
    mma_wait<0>();
    settle(d);
#pragma unroll
    for (int j = 0; j < 12; j += 2) {
      const int n = (j + ((me.lane >> 4) & 1)) * 8 + (me.lane & 7);
      const int plane = me.warp * 2 + ((me.lane >> 3) & 1);
      const int y = n / 9;
      const int x = n - y * 9;
      Address at = delta2 + plane * delta_pitch2 + (lead2 + y * 10 + x) * pixel_bytes;
      if (n > 80) at = base + at_dump;
      const int second = j < 10 ? j + 1 : 10;  // there is no twelfth column of eight: its rows go to the dump
      store_matrices_t(at, where_positive(image[j][0], pack_bf16(d[j * 4], d[j * 4 + 1])),
                       where_positive(image[j][1], pack_bf16(d[j * 4 + 2], d[j * 4 + 3])),
                       where_positive(image[j + 1][0], pack_bf16(d[second * 4], d[second * 4 + 1])),
                       where_positive(image[j + 1][1], pack_bf16(d[second * 4 + 2], d[second * 4 + 3])));
    }
    publish_shared();
    sync_warpgroup(1);
    if (leads) {
      mbarrier_arrive(barriers.full + 8 * buffer);
      copy_out(args.delta2 + static_cast<std::size_t>(sample) * delta2_bytes, delta2, delta2_bytes);
      if (next < args.samples) fetch_image2(next);
    }
  }
  if (leads) wait_copied_out();
}

// The power of two that brings the batch's largest slope into [32, 64). By one warpgroup.
__device__ __forceinline__ float find_scale(const TorsoDeltas& args, float* scratch, const Place& me) {
  float largest = 0;
#pragma unroll 4
  for (int b = me.thread; b < args.samples; b += 128) largest = fmaxf(largest, fabsf(args.terms[b].x));
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, offset));
  }
  if (me.lane == 0) scratch[me.warp] = largest;
  sync_warpgroup(2);
  largest = fmaxf(fmaxf(scratch[0], scratch[1]), fmaxf(scratch[2], scratch[3]));
  float scale = 1;
  if (largest > 0 && !isinf(largest)) {
    int exponent = 0;
    frexpf(largest, &exponent);
    scale = ldexpf(1, min(max(6 - exponent, -100), 100));
  }
  if (blockIdx.x == 0 && me.thread == 0) *args.delta1_scale = scale;
  return scale;
}

__device__ __forceinline__ void through_conv2(const TorsoDeltas& args, std::uint8_t* shared, Address base,
                                              const Barriers& barriers, const Place& me) {
  const bool leads = me.thread == 0;
  if (leads) {
    mbarrier_expect(barriers.weights2, packed2_bytes);
    copy_in(base + at_weights2, args.packed_back + at_weights2, packed2_bytes, barriers.weights2);
  }
  const float scale = find_scale(args, reinterpret_cast<float*>(shared + at_scratch), me);
  const std::uint64_t weights = describe_operand(base + at_weights2, 2048, 128);
  int turn = 0;
  for (int sample = static_cast<int>(blockIdx.x); sample < args.samples;
       sample += static_cast<int>(gridDim.x), ++turn) {
    const int buffer = turn & 1;
    if (leads) {
      wait_copied_out();  // delta 1 of the sample before: image 1 takes its place
      mbarrier_expect(barriers.image1, image1_bytes);
      copy_in(base + at_image1, args.image1 + static_cast<std::size_t>(sample) * image1_bytes, image1_bytes,
              barriers.image1);
    }
    const std::uint64_t operand =
        describe_operand(base + at_delta2 + buffer * delta2_bytes + lead2 * pixel_bytes, delta_pitch2, 128);
    if (turn == 0) mbarrier_wait(barriers.weights2, 0);
    mbarrier_wait(barriers.full + 8 * buffer, (turn >> 1) & 1);
    float d[2][52];
    mma_begin();
#pragma unroll
    for (int k = 0; k < 16; ++k) {
      const int tap = k >> 2;
      const int shift = (tap >> 1) * 10 + (tap & 1);
      const std::uint64_t b = operand + static_cast<std::uint64_t>((k & 3) * (2 * delta_pitch2 / 16) - shift);
      mma(d[0], weights + static_cast<std::uint64_t>(k * 256), b, k != 0);
      mma(d[1], weights + static_cast<std::uint64_t>(k * 256 + 64), b, k != 0);
    }
    mma_commit();
    mbarrier_wait(barriers.image1, turn & 1);
    std::uint32_t image[2][14][2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int j = 0; j < 14; j += 2) {
        const int n = (j + ((me.lane >> 4) & 1)) * 8 + (me.lane & 7);
        const int plane = half * 8 + me.warp * 2 + ((me.lane >> 3) & 1);
        load_matrices_t(base + at_image1 + plane * pitch1 + min(n, 99) * pixel_bytes, image[half][j][0],
                        image[half][j][1], image[half][j + 1][0], image[half][j + 1][1]);
      }
    }
    mma_wait<0>();
    settle(d[0]);
    settle(d[1]);
    sync_warpgroup(2);  // all have read image 1 and delta 2
    if (leads) mbarrier_arrive(barriers.empty + 8 * buffer);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (me.quad_column >= 2) image[half][12][0] = image[half][12][1] = 0;  // pixels 100 to 103 do not exist
      const auto masked = [&](int j, int row) {
        return where_positive(image[half][j][row],
                              pack_half(scale * d[half][j * 4 + 2 * row], scale * d[half][j * 4 + 2 * row + 1]));
      };
      const Address to = base + at_image1 + (2 * half + (me.warp >> 1)) * delta1_parity_bytes +
                         ((me.warp & 1) * 16 + (me.lane & 15)) * 16;
#pragma unroll
      for (int j = 0; j < 12; j += 2) {
        store_matrices(to + (j + (me.lane >> 4)) * 512, masked(j, 0), masked(j, 1), masked(j + 1, 0), masked(j + 1, 1));
      }
      store_matrices(to + 12 * 512, masked(12, 0), masked(12, 1));
    }
    publish_shared();
    sync_warpgroup(2);
    if (leads) {
      copy_out(args.delta1 + static_cast<std::size_t>(sample) * delta1_bytes, base + at_image1, delta1_bytes);
    }
  }
  if (leads) wait_copied_out();
}

__global__ void __launch_bounds__(256, 1) deltas_kernel(const __grid_constant__ TorsoDeltas args) {
  extern __shared__ __align__(1024) std::uint8_t shared[];
  const Address base = shared_address(shared);
  const Place me(threadIdx.x);
  const Barriers barriers(base + at_barriers);
  if (threadIdx.x == 0) {
    for (int i = 0; i < barrier_count; ++i) mbarrier_init(base + at_barriers + 8 * i, 1);
    mbarrier_publish();
  }
  for (int i = static_cast<int>(threadIdx.x); i < (at_image1 - at_delta3) / 16; i += 256) {
    reinterpret_cast<uint4*>(shared + at_delta3)[i] = make_uint4(0, 0, 0, 0);
  }
  publish_shared();
  __syncthreads();
  if (me.group == 0) {
    through_conv3(args, shared, base, barriers, me);
  } else {
    through_conv2(args, shared, base, barriers, me);
  }
}

}  // namespace

void prepare_deltas() {
  QANAT_CUDA(cudaFuncSetAttribute(deltas_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
}

void torso_deltas(cudaStream_t stream, const TorsoDeltas& args, int multiprocessors) {
  deltas_kernel<<<std::min(args.samples, multiprocessors), 256, shared_bytes, stream>>>(args);
  QANAT_LAUNCHED("torso_deltas");
}

}  // namespace qanat::nn::nature
