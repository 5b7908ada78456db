// The torso's weight and bias gradients in one launch.
//
// A weight gradient is a sum over samples and pixels. Blocks have roles: each works on one convolution, on every n-th
// sample, and holds the whole gradient in its accumulators until its samples are done; then it writes one partial sum,
// and finish_gradients() adds the partial sums up. (Atomic additions to one copy were two to three times slower, and
// their order would change from run to run.) A block's samples come through a ring of bulk copies.
//   conv1  [64 of (row, column of pixels)] x 32 channels a warpgroup and K half: frames again become fp16 1024 + pixel
//          in registers, with pixels of the grid along K; 1024 times the bias gradient is taken off at the end.
//   conv2  64 channels x [parity and channel, 128]: a warpgroup a tap. K: 96 pixels of the 10-wide grid.
//   conv3  64 channels x 64 channels: three warpgroups, three taps each. K: 64 pixels of the 9-wide grid.
// Where a delta image holds no pixel it is zero, so whatever finite value its partner has there does not count.
#include <algorithm>

#include "nn/cuda/nature/kernels.h"
#include "nn/cuda/nature/wgmma.cuh"

namespace qanat::nn::nature {
namespace {

constexpr int frame_pitch = 7072;
constexpr int frames_bytes = stack * frame_pitch;
constexpr int stage1_bytes = frames_bytes + delta1_bytes;
constexpr int stage2_bytes = image1_bytes + delta2_bytes;
constexpr int stage3_bytes = image2_bytes + delta3_bytes;
constexpr int stages1 = 4;
constexpr int stages2 = 5;
constexpr int stages3 = 8;
constexpr int at_bias = stages1 * stage1_bytes;
constexpr int at_barriers = at_bias + 2048;
constexpr int shared_bytes = at_barriers + 8 * stages3;
static_assert(shared_bytes <= 232448, "what a block can have on sm_90");
static_assert(stages2 * stage2_bytes <= at_bias && stages3 * stage3_bytes <= at_bias);
// Beyond the last plane of an image, K reads on into the delta image behind it: its leading zeros.
static_assert(96 + 11 - 101 <= lead2 && 64 + 20 - 81 <= lead3);

// A block's walk over its samples: `Stages` of them in flight, refilled by one thread as soon as all have used one.
// From the last sample down: torso_deltas() has written that last, and it is still in the cache.
template <int Stages, class Fetch>
struct Ring {
  Address barriers;
  int first;
  int step;     // distance between the block's samples
  Fetch fetch;  // (sample, stage, barrier)

  __device__ void start() const {
    if (threadIdx.x < Stages) {
      const int stage = static_cast<int>(threadIdx.x);
      if (first >= stage * step) fetch(first - stage * step, stage, barriers + 8 * stage);
    }
  }
  __device__ int wait(int turn) const {
    mbarrier_wait(barriers + 8 * (turn % Stages), (turn / Stages) & 1);
    return turn % Stages;
  }
  __device__ void refill(int sample, int stage) const {
    const int next = sample - Stages * step;
    if (next < 0) return;
    __syncthreads();
    if (threadIdx.x == 0) fetch(next, stage, barriers + 8 * stage);
  }
};
template <int Stages, class Fetch>
__device__ Ring<Stages, Fetch> make_ring(Address barriers, int first, int step, Fetch fetch) {
  return {barriers, first, step, fetch};
}

__device__ __forceinline__ void store4(float* to, float a, float b, float c, float d) {
  *reinterpret_cast<float4*>(to) = make_float4(a, b, c, d);
}

__device__ __forceinline__ void add_bf16(const std::uint8_t* eight, float* sums) {
  const uint4 v = *reinterpret_cast<const uint4*>(eight);
  const std::uint32_t pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    sums[2 * i] += __uint_as_float(pairs[i] << 16);
    sums[2 * i + 1] += __uint_as_float(pairs[i] & 0xffff0000u);
  }
}

// Sums of eight channels over `Threads` neighbouring threads (of one warp); the first of them writes.
template <int Threads>
__device__ __forceinline__ void sum_over_threads(float* sums, float* to) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
#pragma unroll
    for (int offset = Threads / 2; offset > 0; offset /= 2) sums[i] += __shfl_xor_sync(~0u, sums[i], offset);
    if (threadIdx.x % Threads == 0) to[i] = sums[i];
  }
}

__device__ __forceinline__ void conv1_gradient(const TorsoGradients& args, std::uint8_t* shared, Address base,
                                               int block, const Place& me) {
  const int first = static_cast<int>(args.batch.size) - 1 - block;
  const std::byte* const rows = args.batch.head->state_rows;
  const auto ring =
      make_ring<stages1>(base + at_barriers, first, args.split.conv1, [&](int sample, int stage, Address barrier) {
        const uint4 row = reinterpret_cast<const uint4*>(args.batch.state_index)[sample];
        const Address to = base + stage * stage1_bytes;
        mbarrier_expect(barrier, stack * frame_bytes + delta1_bytes);
        copy_in(to + frames_bytes, args.delta1 + static_cast<std::size_t>(sample) * delta1_bytes, delta1_bytes,
                barrier);
        copy_in(to, rows + static_cast<std::size_t>(row.x) * frame_bytes, frame_bytes, barrier);
        copy_in(to + frame_pitch, rows + static_cast<std::size_t>(row.y) * frame_bytes, frame_bytes, barrier);
        copy_in(to + 2 * frame_pitch, rows + static_cast<std::size_t>(row.z) * frame_bytes, frame_bytes, barrier);
        copy_in(to + 3 * frame_pitch, rows + static_cast<std::size_t>(row.w) * frame_bytes, frame_bytes, barrier);
      });
  ring.start();
  float sums[2][16] = {};
  float bias_sum = 0;
  const int frame_pair = me.group & 1;
  const int k_half = me.group >> 1;  // of K: 2 of the 4 parities, that is even or odd rows of pixels
  const int frame = frame_pair * 2 + (me.warp >> 1);
  int turn = 0;
  for (int sample = first; sample >= 0; sample -= args.split.conv1, ++turn) {
    const int stage = ring.wait(turn);
    const Address here = base + stage * stage1_bytes;
    // Thread's row of D: pixel row quad_row, pixel columns 4 (warp & 1) + {0, 1} and + {2, 3} of the 8x8 window.
    const Address window =
        here + frame * frame_pitch + me.quad_row * frame_side + 4 * (me.warp & 1) + k_half * 4 * frame_side;
    const std::uint64_t delta = describe_operand(here + frames_bytes + k_half * 2 * delta1_parity_bytes, 512, 128);
    // Along K, groups of eight pixels of the 10x10 grid; this thread has pixels 2 q and 2 q + 1 of each (q its quad
    // column). Eight times five are four grid rows, so five start positions cover all groups: a pixel further right
    // is 8 bytes on (two input pixels times stride 4), a grid row 8 * 84 - 80 more. q may wrap into the next grid row.
    Address start[5];
#pragma unroll
    for (int r = 0; r < 5; ++r) {
      start[r] = window + 16 * me.quad_column + (2 * r + 2 * me.quad_column >= 10 ? 8 * frame_side - 80 : 0);
    }
    const auto load = [&](int k, std::uint32_t(&v)[4]) {
#pragma unroll
      for (int q = 0; q < 2; ++q) {
        const int group = 2 * k + q;  // of 26: 13 of even columns, 13 of odd ones
        const int odd = group >= 13 ? 1 : 0;
        const int pixel = (group - 13 * odd) * 8;
        const Address at = start[(pixel % 10) / 2] + 4 * (148 * (pixel / 10) + 2 * pixel + odd);
        v[2 * q] = load_shared(at);
        v[2 * q + 1] = load_shared(at + 8);
      }
    };
    std::uint32_t v[2][4];
    std::uint32_t a[2][2][4];
    load(0, v[0]);
#pragma unroll
    for (int k = 0; k < 13; ++k) {
      if (k < 12) load(k + 1, v[(k + 1) & 1]);
      const auto& p = v[k & 1];
      auto& f = a[k & 1];
#pragma unroll
      for (int q = 0; q < 2; ++q) {  // K runs over pixels: pair up the two pixels' bytes of the same column
        const std::uint32_t left = __byte_perm(p[2 * q], p[2 * q + 1], 0x5140);
        const std::uint32_t right = __byte_perm(p[2 * q], p[2 * q + 1], 0x7362);
        f[0][2 * q] = first_pixels(left);
        f[0][2 * q + 1] = last_pixels(left);
        f[1][2 * q] = first_pixels(right);
        f[1][2 * q + 1] = last_pixels(right);
      }
      mma_begin();
      const std::uint64_t b = delta + static_cast<std::uint64_t>(k * 64);
      mma(sums[0], f[0][0], f[0][1], f[0][2], f[0][3], b, true);
      mma(sums[1], f[1][0], f[1][1], f[1][2], f[1][3], b, true);
      mma_commit();
      mma_wait<1>();
    }
    for (int group = static_cast<int>(threadIdx.x) >> 5; group < 52; group += 16) {  // lane: channel
      const uint4 u =
          *reinterpret_cast<const uint4*>(shared + stage * stage1_bytes + frames_bytes + group * 512 + me.lane * 16);
      const std::uint32_t pairs[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 two = __half22float2(reinterpret_cast<const __half2&>(pairs[i]));
        bias_sum += two.x + two.y;
      }
    }
    mma_wait<0>();
    settle(sums[0]);
    settle(sums[1]);
    ring.refill(sample, stage);
  }

  float* const bias = reinterpret_cast<float*>(shared + at_bias);
  float* const out = args.partials1 + static_cast<std::size_t>(block) * partial1;
  bias[threadIdx.x] = bias_sum;  // [16 warps][32]
  __syncthreads();
  if (threadIdx.x < 32) {
    float sum = 0;
    for (int i = 0; i < 16; ++i) sum += bias[i * 32 + threadIdx.x];
    bias[threadIdx.x] = sum;
    out[conv1_weights + threadIdx.x] = sum;
  }
  __syncthreads();
  // The two halves of K meet: the second hands its sums over through shared memory, whose samples are all used.
  float* const other = reinterpret_cast<float*>(shared);
  if (k_half == 1) {
#pragma unroll
    for (int i = 0; i < 32; ++i) other[(frame_pair * 32 + i) * 128 + me.thread] = sums[i >> 4][i & 15];
  }
  __syncthreads();
  if (k_half == 1) return;
#pragma unroll
  for (int tile = 0; tile < 2; ++tile) {
    float* const to = out + ((frame_pair * 2 + tile) * 4) * 512 + me.thread * 4;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float b0 = 1024.0f * bias[j * 8 + 2 * me.quad_column];
      const float b1 = 1024.0f * bias[j * 8 + 2 * me.quad_column + 1];
      const float* const x = other + (frame_pair * 32 + tile * 16 + j * 4) * 128 + me.thread;
      const float* const s = &sums[tile][j * 4];
      store4(to + j * 512, s[0] + x[0] - b0, s[1] + x[128] - b1, s[2] + x[256] - b0, s[3] + x[384] - b1);
    }
  }
}

__device__ __forceinline__ void conv2_gradient(const TorsoGradients& args, std::uint8_t* shared, Address base,
                                               int block, const Place& me) {
  const int first = static_cast<int>(args.batch.size) - 1 - block;
  const auto ring =
      make_ring<stages2>(base + at_barriers, first, args.split.conv2, [&](int sample, int stage, Address barrier) {
        const Address to = base + stage * stage2_bytes;
        mbarrier_expect(barrier, stage2_bytes);
        copy_in(to, args.image1 + static_cast<std::size_t>(sample) * image1_bytes, image1_bytes, barrier);
        copy_in(to + image1_bytes, args.delta2 + static_cast<std::size_t>(sample) * delta2_bytes, delta2_bytes,
                barrier);
      });
  ring.start();
  float sums[64] = {};
  float bias_sums[8] = {};
  const int shift = (me.group >> 1) * 10 + (me.group & 1);
  const int plane = static_cast<int>(threadIdx.x) >> 6;  // for the bias: 64 threads a plane of delta 2
  const int pixel = static_cast<int>(threadIdx.x) & 63;
  int turn = 0;
  for (int sample = first; sample >= 0; sample -= args.split.conv2, ++turn) {
    const int stage = ring.wait(turn);
    const Address here = base + stage * stage2_bytes;
    const std::uint64_t a = describe_operand(here + image1_bytes + lead2 * pixel_bytes, 128, delta_pitch2);
    const std::uint64_t b = describe_operand(here + shift * pixel_bytes, 128, pitch1);
    mma_begin();
#pragma unroll
    for (int k = 0; k < 6; ++k) {
      mma_transposed(sums, a + static_cast<std::uint64_t>(k * 16), b + static_cast<std::uint64_t>(k * 16));
    }
    mma_commit();
    const std::uint8_t* const delta =
        shared + stage * stage2_bytes + image1_bytes + plane * delta_pitch2 + lead2 * pixel_bytes;
    add_bf16(delta + pixel * pixel_bytes, bias_sums);
    if (pixel < 89 - 64) add_bf16(delta + (64 + pixel) * pixel_bytes, bias_sums);
    mma_wait<0>();
    settle(sums);
    ring.refill(sample, stage);
  }
  float* const out = args.partials2 + static_cast<std::size_t>(block) * partial2;
#pragma unroll
  for (int j = 0; j < 16; ++j) {
    const float* const s = sums + j * 4;
    store4(out + me.group * 8192 + j * 512 + me.thread * 4, s[0], s[1], s[2], s[3]);
  }
  float* const halves = reinterpret_cast<float*>(shared + at_bias);  // [8 planes][2 warps][8 channels]
  sum_over_threads<32>(bias_sums, halves + (threadIdx.x >> 5) * 8);
  __syncthreads();
  if (threadIdx.x < 64) {
    const int at = static_cast<int>(threadIdx.x >> 3) * 16 + static_cast<int>(threadIdx.x & 7);
    out[conv2_weights + threadIdx.x] = halves[at] + halves[at + 8];
  }
}

__device__ __forceinline__ void conv3_gradient(const TorsoGradients& args, std::uint8_t* shared, Address base,
                                               int block, const Place& me) {
  const int first = static_cast<int>(args.batch.size) - 1 - block;
  const auto ring =
      make_ring<stages3>(base + at_barriers, first, args.split.conv3, [&](int sample, int stage, Address barrier) {
        const Address to = base + stage * stage3_bytes;
        mbarrier_expect(barrier, stage3_bytes);
        copy_in(to, args.image2 + static_cast<std::size_t>(sample) * image2_bytes, image2_bytes, barrier);
        copy_in(to + image2_bytes, args.delta3 + static_cast<std::size_t>(sample) * delta3_bytes, delta3_bytes,
                barrier);
      });
  ring.start();
  float sums[3][32] = {};  // the fourth warpgroup's: eight sums for the bias
  int turn = 0;
  for (int sample = first; sample >= 0; sample -= args.split.conv3, ++turn) {
    const int stage = ring.wait(turn);
    const Address here = base + stage * stage3_bytes;
    if (me.group < 3) {
      const std::uint64_t a = describe_operand(here + image2_bytes + lead3 * pixel_bytes, 128, delta_pitch3);
      const std::uint64_t b = describe_operand(here + me.group * 9 * pixel_bytes, 128, pitch2);
      mma_begin();
#pragma unroll
      for (int k = 0; k < 4; ++k) {
#pragma unroll
        for (int tap = 0; tap < 3; ++tap) {
          mma_transposed(sums[tap], a + static_cast<std::uint64_t>(k * 16),
                         b + static_cast<std::uint64_t>(k * 16 + tap));
        }
      }
      mma_commit();
      mma_wait<0>();
      settle(sums[0]);
      settle(sums[1]);
      settle(sums[2]);
    } else {  // 16 threads a plane of delta 3, four pixels each
      const std::uint8_t* const delta = shared + stage * stage3_bytes + image2_bytes + (me.thread >> 4) * delta_pitch3 +
                                        (lead3 + (me.thread & 15)) * pixel_bytes;
#pragma unroll
      for (int i = 0; i < 4; ++i) add_bf16(delta + i * 16 * pixel_bytes, sums[0]);
    }
    ring.refill(sample, stage);
  }
  float* const out = args.partials3 + static_cast<std::size_t>(block) * partial3;
  if (me.group == 3) {
    sum_over_threads<16>(sums[0], out + conv3_weights + (me.thread >> 4) * 8);
    return;
  }
#pragma unroll
  for (int tap = 0; tap < 3; ++tap) {
    float* const to = out + (me.group * 3 + tap) * 4096 + me.thread * 4;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float* const s = &sums[tap][j * 4];
      store4(to + j * 512, s[0], s[1], s[2], s[3]);
    }
  }
}

__global__ void __launch_bounds__(512, 1) gradients_kernel(const __grid_constant__ TorsoGradients args) {
  extern __shared__ __align__(1024) std::uint8_t shared[];
  const Address base = shared_address(shared);
  const Place me(threadIdx.x);
  if (threadIdx.x == 0) {
    for (int i = 0; i < stages3; ++i) mbarrier_init(base + at_barriers + 8 * i, 1);
    mbarrier_publish();
  }
  __syncthreads();
  const int block = static_cast<int>(blockIdx.x);
  if (block < args.split.conv1) {
    conv1_gradient(args, shared, base, block, me);
  } else if (block < args.split.conv1 + args.split.conv2) {
    conv2_gradient(args, shared, base, block - args.split.conv1, me);
  } else {
    conv3_gradient(args, shared, base, block - args.split.conv1 - args.split.conv2, me);
  }
}

}  // namespace

void prepare_gradients() {
  QANAT_CUDA(cudaFuncSetAttribute(gradients_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
}

// Measured on an H100 (132 multiprocessors): 74, 36 and 22 blocks are the fastest at 512 samples. With few samples
// more blocks than samples are of no use, and each partial sum costs its reading.
Split weight_gradient_split(int samples, int multiprocessors) {
  if (samples <= 64) {
    const int each = std::min(samples, multiprocessors / 3);
    return {each, std::min(each, 16), std::min(each, 16)};
  }
  const int conv2 = multiprocessors * 36 / 132;
  const int conv3 = multiprocessors * 22 / 132;
  return {multiprocessors - conv2 - conv3, conv2, conv3};
}

void torso_gradients(cudaStream_t stream, const TorsoGradients& args) {
  const int blocks = args.split.conv1 + args.split.conv2 + args.split.conv3;
  gradients_kernel<<<blocks, 512, shared_bytes, stream>>>(args);
  QANAT_LAUNCHED("torso_gradients");
}

}  // namespace qanat::nn::nature
