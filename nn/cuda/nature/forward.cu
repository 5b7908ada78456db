// The torso forward, from frames to features, for both networks in one launch.
//
// A block keeps its network's packed weights (152 KB) in shared memory for the whole launch. Its two warpgroups work on
// samples of their own, independently: one's tensor work covers the other's epilogues. A sample's four frames come by
// bulk copies (the stack is gathered here, by row number; it is never written down), those of the next sample while
// this one's second and third convolutions run.
//   conv1  pixels on M, K = 256 = 16 steps of one row's four pixels of four frames, A from registers: a byte becomes
//          fp16 1024 + pixel by one byte permutation. The bias subtracts 1024 times the sum of the weights, the
//          epilogue multiplies by the pixels' scale.
//   conv2  channels on M, pixels of the 10-wide grid on N (96 of which 81 count), K = 512: a tap of the 2x2 grid of
//          parities is a shift by 0, 1, 10 or 11 pixels.
//   conv3  channels on M, pixels of the 9-wide grid on N (64, of which 49 count), K = 576: nine shifts.
// Columns that do not count read whatever follows and are thrown away; nothing else depends on them.
#include "nn/cuda/nature/kernels.h"
#include "nn/cuda/nature/wgmma.cuh"

namespace qanat::nn::nature {
namespace {

constexpr int frame_pitch = 7072;     // a quad's four frames start in different banks
constexpr int region_image2 = 27264;  // behind image 1, which takes the frames' place
constexpr int region_bytes = region_image2 + image2_bytes;
constexpr int region_features = region_image2 + 1024;  // the features take image 2's place
constexpr int last_frame_head = 6048;                  // the last frame's end reaches into image 2's place

constexpr int at_weights2 = packed1_bytes;
constexpr int at_weights3 = packed1_bytes + packed2_bytes;
constexpr int at_regions = packed_weight_bytes;
constexpr int at_bias = at_regions + 2 * region_bytes;
constexpr int at_dump = at_bias + torso_channels * 4;
constexpr int at_barriers = at_dump + 64;
constexpr int shared_bytes = at_barriers + 64;
static_assert(shared_bytes <= 232448, "what a block can have on sm_90");

using PackedPixels = std::uint32_t[7][2][4];  // a thread's part of conv1's output, bf16

// D [448 pixels, 32 channels] in seven tiles of 64. Each thread converts its own fragments of A.
__device__ __forceinline__ void conv1(Address frames, std::uint64_t weights, const float* bias, float scale,
                                      const Place& me, PackedPixels& out) {
  float sums[2][16];
  std::uint32_t a[2][8][4];
  const Address mine = frames + me.quad_column * frame_pitch;
#pragma unroll
  for (int c = 0; c < 15; ++c) {  // half a tile's K each; the tensor cores work on c - 1 while c is converted
    if (c < 14) {
      const int tile = c >> 1;
      int m0 = tile * 64 + me.warp * 16 + me.quad_row;
      int m1 = m0 + 8;
      if (tile == 6) {  // the last tile has 16 pixels
        m0 = min(m0, 399);
        m1 = min(m1, 399);
      }
      const Address at0 = mine + 4 * (m0 + 64 * (m0 / 20));  // (4 y) * 84 + 4 x of pixel m = 20 y + x
      const Address at1 = mine + 4 * (m1 + 64 * (m1 / 20));
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        const int offset = ((c & 1) * 4 + (k >> 1)) * frame_side + 4 * (k & 1);
        const std::uint32_t four0 = load_shared(at0 + offset);
        const std::uint32_t four1 = load_shared(at1 + offset);
        a[c & 1][k][0] = first_pixels(four0);
        a[c & 1][k][1] = first_pixels(four1);
        a[c & 1][k][2] = last_pixels(four0);
        a[c & 1][k][3] = last_pixels(four1);
      }
      mma_begin();
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        const auto& f = a[c & 1][k];
        mma(sums[tile & 1], f[0], f[1], f[2], f[3], weights + static_cast<std::uint64_t>(((c & 1) * 8 + k) * 64),
            ((c & 1) | k) != 0);
      }
      mma_commit();
      mma_wait<1>();
    } else {
      mma_wait<0>();
    }
    if (c > 0 && ((c - 1) & 1) != 0) {
      const int tile = (c - 1) >> 1;
      float(&sum)[16] = sums[tile & 1];
      settle(sum);
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const float b0 = bias[n * 8 + 2 * me.quad_column];
        const float b1 = bias[n * 8 + 2 * me.quad_column + 1];
        out[tile][0][n] = pack_relu(fmaf(sum[n * 4], scale, b0), fmaf(sum[n * 4 + 1], scale, b1));
        out[tile][1][n] = pack_relu(fmaf(sum[n * 4 + 2], scale, b0), fmaf(sum[n * 4 + 3], scale, b1));
      }
    }
  }
}

__device__ __forceinline__ void store_image1(Address image, const PackedPixels& pixels, const Place& me) {
#pragma unroll
  for (int tile = 0; tile < 7; ++tile) {
    if (tile == 6 && me.warp != 0) continue;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int m = tile * 64 + me.warp * 16 + half * 8 + (me.lane & 7);
      const int y = m / 20;
      const int x = m - y * 20;
      const int plane = ((y & 1) * 2 + (x & 1)) * 4 + (me.lane >> 3);
      const auto& p = pixels[tile][half];
      store_matrices(image + plane * pitch1 + ((y >> 1) * 10 + (x >> 1)) * pixel_bytes, p[0], p[1], p[2], p[3]);
    }
  }
}

// Bias, relu, and a D of [64 channels, N pixels of a grid Width wide] to planes of `side` x `side` pixels; what lies
// outside goes to `dump`.
template <int N, int Width>
__device__ __forceinline__ void store_planes(const float (&d)[N / 2], const float* bias, Address planes, int pitch,
                                             int side, Address dump, const Place& me) {
  const float b0 = bias[me.warp * 16 + me.quad_row];
  const float b1 = bias[me.warp * 16 + me.quad_row + 8];
#pragma unroll
  for (int j = 0; j < N / 8; j += 2) {
    const int n = (j + ((me.lane >> 4) & 1)) * 8 + (me.lane & 7);
    const int y = n / Width;
    const int x = n - y * Width;
    const int plane = me.warp * 2 + ((me.lane >> 3) & 1);
    Address at = planes + plane * pitch + (y * side + x) * pixel_bytes;
    if (x >= side || y >= side) at = dump;
    store_matrices_t(at, pack_relu(d[j * 4] + b0, d[j * 4 + 1] + b0), pack_relu(d[j * 4 + 2] + b1, d[j * 4 + 3] + b1),
                     pack_relu(d[j * 4 + 4] + b0, d[j * 4 + 5] + b0), pack_relu(d[j * 4 + 6] + b1, d[j * 4 + 7] + b1));
  }
}

// One block's share of the work: every `step`-th sample of one network's, from its warpgroups' first ones down to 0. So
// the states come last, and torso_deltas(), which begins with sample 0, finds what it reads in the cache.
struct Share {
  bool target;
  int first, step;

  __device__ Share(const TorsoForward& args, int online_blocks, int online_samples, int group) {
    const int block = static_cast<int>(blockIdx.x);
    target = block >= online_blocks;
    const int blocks = target ? static_cast<int>(gridDim.x) - online_blocks : online_blocks;
    const int samples = target ? static_cast<int>(args.batch.size) : online_samples;
    first = samples - 1 - (target ? block - online_blocks : block) - blocks * group;
    step = 2 * blocks;
  }
};

// A sample's four frames.
struct Frames {
  const std::byte* frame[stack];
};

// Number `sample` of a network's samples: the online network's are the states, then the next states.
__device__ __forceinline__ Frames find_frames(const cuda::DeviceBatch& batch, const std::byte* state_rows,
                                              const std::byte* next_rows, bool target, int sample) {
  const int size = static_cast<int>(batch.size);
  const bool next = target || sample >= size;
  const std::uint32_t* const index = next ? batch.next_index : batch.state_index;
  const std::byte* const rows = next ? next_rows : state_rows;
  const uint4 row = reinterpret_cast<const uint4*>(index)[!target && next ? sample - size : sample];
  return {{rows + static_cast<std::size_t>(row.x) * frame_bytes, rows + static_cast<std::size_t>(row.y) * frame_bytes,
           rows + static_cast<std::size_t>(row.z) * frame_bytes, rows + static_cast<std::size_t>(row.w) * frame_bytes}};
}

__global__ void __launch_bounds__(256, 1)
    forward_kernel(const __grid_constant__ TorsoForward args, int online_blocks, int online_samples) {
  extern __shared__ __align__(1024) std::uint8_t shared[];
  const Address base = shared_address(shared);
  const Place me(threadIdx.x);
  const Share share(args, online_blocks, online_samples, me.group);
  const std::uint8_t* const packed = share.target ? args.target_packed : args.packed;
  std::uint8_t* const features_out = share.target ? args.target_features : args.features;
  const int kept = share.target || args.image1 == nullptr ? 0 : static_cast<int>(args.batch.size);
  int sample = share.first;
  const bool leads = me.thread == 0;  // issues its warpgroup's copies
  const std::byte* state_rows = nullptr;
  const std::byte* next_rows = nullptr;
  Frames frames = {};
  if (leads && sample >= 0) {
    state_rows = args.batch.head->state_rows;
    next_rows = args.batch.head->next_rows;
    frames = find_frames(args.batch, state_rows, next_rows, share.target, sample);
  }

  const Address weights_here = base + at_barriers;  // three barriers, then one a warpgroup for its frames
  const Address frames_here = weights_here + 24 + 8 * me.group;
  if (threadIdx.x == 0) {
    for (int i = 0; i < 5; ++i) mbarrier_init(weights_here + 8 * i, 1);
    mbarrier_publish();
  }
  float* const bias = reinterpret_cast<float*>(shared + at_bias);
  const float* const packed_bias = reinterpret_cast<const float*>(packed + packed_weight_bytes);
  if (threadIdx.x < torso_channels) bias[threadIdx.x] = packed_bias[threadIdx.x];
  __syncthreads();

  const Address region = base + at_regions + me.group * region_bytes;
  const Address image2 = region + region_image2;
  const auto fetch = [&] {
    mbarrier_expect(frames_here, stack * frame_bytes);
    copy_in(region, frames.frame[0], frame_bytes, frames_here);
    copy_in(region + frame_pitch, frames.frame[1], frame_bytes, frames_here);
    copy_in(region + 2 * frame_pitch, frames.frame[2], frame_bytes, frames_here);
    copy_in(region + 3 * frame_pitch, frames.frame[3], last_frame_head, frames_here);
  };
  const auto fetch_rest = [&] {
    copy_in(image2, frames.frame[3] + last_frame_head, frame_bytes - last_frame_head, frames_here);
  };
  // In the order in which they are needed: conv1's weights, frames, the other weights.
  if (threadIdx.x == 0) {
    mbarrier_expect(weights_here, packed1_bytes);
    copy_in(base, packed, packed1_bytes, weights_here);
  }
  if (leads && sample >= 0) {
    fetch();
    fetch_rest();
  }
  if (threadIdx.x == 0) {
    mbarrier_expect(weights_here + 8, packed2_bytes);
    copy_in(base + at_weights2, packed + at_weights2, packed2_bytes, weights_here + 8);
    mbarrier_expect(weights_here + 16, packed3_bytes);
    copy_in(base + at_weights3, packed + at_weights3, packed3_bytes, weights_here + 16);
  }

  const Address dump = base + at_dump + 16 * me.group;
  const int barrier = 1 + me.group;
  const std::uint64_t weights1 = describe_operand(base, 512, 128);
  const std::uint64_t weights2 = describe_operand(base + at_weights2, 1024, 128);
  const std::uint64_t weights3 = describe_operand(base + at_weights3, 1024, 128);
  const std::uint64_t operand2 = describe_operand(region, pitch1, 128);
  const std::uint64_t operand3 = describe_operand(image2, pitch2, 128);
  for (std::uint32_t turn = 0; sample >= 0; sample -= share.step, ++turn) {
    const bool keeps = sample < kept;
    const bool more = sample >= share.step;
    if (leads && more) {
      frames = find_frames(args.batch, state_rows, next_rows, share.target, sample - share.step);
    }
    mbarrier_wait(frames_here, turn & 1);
    if (turn == 0) mbarrier_wait(weights_here, 0);
    {
      PackedPixels pixels;
      conv1(region, weights1, bias, args.input_scale, me, pixels);
      sync_warpgroup(barrier);
      store_image1(region, pixels, me);
    }
    if (keeps && me.thread < 16) {  // the padding pixel of each plane
      *reinterpret_cast<uint4*>(shared + at_regions + me.group * region_bytes + me.thread * pitch1 + 1600) =
          make_uint4(0, 0, 0, 0);
    }
    publish_shared();
    sync_warpgroup(barrier);
    if (keeps && leads) {
      copy_out(args.image1 + static_cast<std::size_t>(sample) * image1_bytes, region, image1_bytes);
    }

    if (turn == 0) mbarrier_wait(weights_here + 8, 0);
    {
      float d[48];
      mma_begin();
#pragma unroll
      for (int k = 0; k < 32; ++k) {
        const int tap = k >> 3;
        const int shift = (tap >> 1) * 10 + (tap & 1);
        mma(d, weights2 + static_cast<std::uint64_t>(k * 128),
            operand2 + static_cast<std::uint64_t>((k & 7) * (2 * pitch1 / 16) + shift), k != 0);
      }
      mma_commit();
      mma_wait<0>();
      settle(d);
      if (leads) wait_copied_out();  // image 1, and the features of the sample before
      sync_warpgroup(barrier);
      if (leads && more) fetch();
      store_planes<96, 10>(d, bias + 32, image2, pitch2, 9, dump, me);
    }
    publish_shared();
    sync_warpgroup(barrier);
    if (keeps && leads) {
      copy_out(args.image2 + static_cast<std::size_t>(sample) * image2_bytes, image2, image2_bytes);
    }

    if (turn == 0) mbarrier_wait(weights_here + 16, 0);
    {
      float d[32];
      mma_begin();
#pragma unroll
      for (int k = 0; k < 36; ++k) {
        const int tap = k >> 2;
        const int shift = (tap / 3) * 9 + tap % 3;
        mma(d, weights3 + static_cast<std::uint64_t>(k * 128),
            operand3 + static_cast<std::uint64_t>((k & 3) * (2 * pitch2 / 16) + shift), k != 0);
      }
      mma_commit();
      mma_wait<0>();
      settle(d);
      if (keeps && leads) wait_copied_out();
      sync_warpgroup(barrier);
      if (leads && more) fetch_rest();
      store_planes<64, 9>(d, bias + 96, region + region_features, pitch3, 7, dump, me);
    }
    publish_shared();
    sync_warpgroup(barrier);
    if (leads) {
      copy_out(features_out + static_cast<std::size_t>(sample) * image3_bytes, region + region_features, image3_bytes);
    }
  }
  if (leads) wait_copied_out();
}

}  // namespace

void prepare_forward() {
  QANAT_CUDA(cudaFuncSetAttribute(forward_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
}

void torso_forward(cudaStream_t stream, const TorsoForward& args, int multiprocessors) {
  const int batch = static_cast<int>(args.batch.size);
  const int online_samples = args.online_next ? 2 * batch : batch;
  const int samples = online_samples + batch;
  int blocks = samples;
  int online_blocks = online_samples;
  if (samples > multiprocessors) {
    blocks = multiprocessors;
    online_blocks = args.online_next ? blocks * 2 / 3 : blocks / 2;
  }
  forward_kernel<<<blocks, 256, shared_bytes, stream>>>(args, online_blocks, online_samples);
  QANAT_LAUNCHED("torso_forward");
}

}  // namespace qanat::nn::nature
