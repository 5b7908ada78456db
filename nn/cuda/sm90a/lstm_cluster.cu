#include <algorithm>

#include "nn/cuda/check.h"
#include "nn/cuda/sm90a/cluster.cuh"
#include "nn/cuda/sm90a/lstm_cluster.h"

namespace qanat::nn::cuda {
namespace {

using bf16 = __nv_bfloat16;
using namespace cluster;

constexpr int features = cluster_lstm_features;
constexpr int rows = cluster_lstm_rows;
constexpr int blocks = 16;  // of a cluster
constexpr int threads = 256;
constexpr int block_features = features / blocks;  // 32
constexpr int most_streams = 4;
constexpr int hidden_bytes = rows * features * 2;  // one stream's h: what a step waits for
constexpr int gates = 4;

// Where a block keeps 8 features (of 32, number `m8`) of batch row n, in units of 16 bytes: the quads of a warp's
// fragment loads and the rows of its stores both fall into different banks.
__host__ __device__ constexpr int piece(int n, int m8) { return m8 * 8 + (n & 1) * 4 + ((n >> 1) ^ m8); }

// ---- forward ----

struct ForwardNetworks {
  ClusterLstmForward network[2];
};

template <int streams>
struct ForwardShared {
  static constexpr int hidden = 0;                                     // [streams][2][hidden_bytes]
  static constexpr int inputs = hidden + streams * 2 * hidden_bytes;   // [4 stages][streams][threads] of 8 bytes
  static constexpr int exchange = inputs + 4 * streams * threads * 8;  // [2][threads] of 16 bytes
  static constexpr int outputs = exchange + 2 * threads * 16;          // [streams][8 warps] of 64 bytes
  static constexpr int barriers = outputs + streams * 8 * 64;          // [streams][2]
  static constexpr int bytes = barriers + streams * 16;
};

// Warp w works on 8 features (w % 4) and half of K (w / 4). In its two 16-row tiles rows are (gate, feature): input and
// forget in the first, cell and output in the second. Of an accumulator's two batch rows each half keeps one, so a
// thread ends with all four gates of one feature of one batch row.
template <int streams>
__global__ void __launch_bounds__(threads, 1)
    forward_kernel(const __grid_constant__ ForwardNetworks networks, int clusters_a_network, int steps, int batch) {
  using Shared = ForwardShared<streams>;
  extern __shared__ __align__(128) unsigned char shared[];
  const int tid = static_cast<int>(threadIdx.x), lane = tid & 31, warp = tid >> 5;
  const int part = warp & 3, half = warp >> 2, g = lane >> 2, quad = lane & 3;
  const int block = static_cast<int>(blockIdx.x) % blocks, group = static_cast<int>(blockIdx.x) / blocks;
  const ClusterLstmForward& net = networks.network[group / clusters_a_network];
  const int first_row = group % clusters_a_network * streams * rows;
  const int live = min(streams, (batch - first_row) / rows);  // the same in all of a cluster
  const int feature = block * block_features + part * 8 + g;

  // K is taken in an order in which a thread's eight values of two k16 steps are neighbours in memory.
  std::uint32_t weight[8][2][2][4];
#pragma unroll
  for (int kb = 0; kb < 8; ++kb) {
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      const int k = (half * 8 + kb) * 32 + quad * 8;
      const bf16* row = net.weight + static_cast<std::size_t>(feature * gates + 2 * m) * features + k;
      const uint4 r0 = __ldg(reinterpret_cast<const uint4*>(row));
      const uint4 r1 = __ldg(reinterpret_cast<const uint4*>(row + features));
      weight[kb][0][m][0] = r0.x, weight[kb][0][m][1] = r1.x, weight[kb][0][m][2] = r0.y, weight[kb][0][m][3] = r1.y;
      weight[kb][1][m][0] = r0.z, weight[kb][1][m][1] = r1.z, weight[kb][1][m][2] = r0.w, weight[kb][1][m][3] = r1.w;
    }
  }
  for (int i = tid; i < live * 512; i += threads) {
    const int s = i >> 9, kb = (i >> 5) & 15, n = (i & 31) >> 2, m8 = i & 3;
    *reinterpret_cast<uint4*>(shared + Shared::hidden + s * 2 * hidden_bytes + (kb * 32 + piece(n, m8)) * 16) =
        *reinterpret_cast<const uint4*>(
            net.hidden_before + static_cast<std::size_t>(first_row + s * rows + n) * features + kb * 32 + m8 * 8);
  }

  const std::size_t step_size = static_cast<std::size_t>(batch) * features;
  const std::size_t own = static_cast<std::size_t>(first_row + 2 * quad + half) * features + feature;
  const bf16* input = net.sums + own * gates;
  bf16* gates_out = net.gates + own * gates;
  float* cell_out = net.cell + own;
  bf16* hidden_out =
      net.hidden + static_cast<std::size_t>(first_row + 2 * quad + half) * features + block * block_features + part * 8;
  const int first_gates = net.gates != nullptr ? net.first_kept : steps;
  const int first_cell = net.gates != nullptr ? net.first_kept - 1 : steps;
  float cell[streams];
#pragma unroll
  for (int s = 0; s < streams; ++s) cell[s] = s < live ? net.cell_before[own + s * rows * features] : 0.0f;

  const std::uint32_t base = shared_address(shared);
  const std::uint32_t input_slot = base + Shared::inputs + tid * 8;
  const auto prefetch = [&](int t) {
    if (t < steps) {
#pragma unroll
      for (int s = 0; s < streams; ++s) {
        if (s < live) {
          copy_async<8>(input_slot + ((t & 3) * streams + s) * threads * 8,
                        input + t * step_size * gates + s * rows * features * gates);
        }
      }
    }
    copy_commit();
  };
  prefetch(0), prefetch(1), prefetch(2);
  const std::uint32_t barriers = base + Shared::barriers;
  if (tid == 0) {
    for (int i = 0; i < streams * 2; ++i) barrier_init(barriers + i * 8);
    barrier_init_fence();
    for (int i = 0; i < streams * 2; ++i) barrier_expect(barriers + i * 8, hidden_bytes);
  }
  const std::uint32_t to_a = in_block(base, g), to_b = in_block(base, g + 8);
  cluster_sync();
  __syncthreads();

  std::uint32_t phases = 0;  // a bit a barrier
  int exchange_turn = 0;
  for (int t0 = 0; t0 < steps; t0 += 2) {
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      const int t = t0 + u;
      if (t >= steps) break;
      copy_wait<2>();
#pragma unroll
      for (int s = 0; s < streams; ++s) {
        if (s >= live) continue;
        const int barrier = s * 2 + u;
        if (t > 0) {
          barrier_wait(barriers + barrier * 8, (phases >> barrier) & 1);
          phases ^= 1u << barrier;
          if (tid == 0) barrier_expect(barriers + barrier * 8, hidden_bytes);
        }
        float sums[2][2][4] = {};
        const uint4* hidden = reinterpret_cast<const uint4*>(shared + Shared::hidden + (s * 2 + u) * hidden_bytes) +
                              half * 256 + piece(g, quad);
#pragma unroll
        for (int kb = 0; kb < 8; ++kb) {
          const uint4 b = hidden[kb * 32];
          mma(sums[0][0], weight[kb][0][0], b.x, b.y);
          mma(sums[1][0], weight[kb][0][1], b.x, b.y);
          mma(sums[0][1], weight[kb][1][0], b.z, b.w);
          mma(sums[1][1], weight[kb][1][1], b.z, b.w);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[0][0][i] += sums[0][1][i], sums[1][0][i] += sums[1][1][i];
        const float4 even = make_float4(sums[0][0][0], sums[0][0][2], sums[1][0][0], sums[1][0][2]);
        const float4 odd = make_float4(sums[0][0][1], sums[0][0][3], sums[1][0][1], sums[1][0][3]);
        exchange_turn ^= 1;
        float4* exchange = reinterpret_cast<float4*>(shared + Shared::exchange) + exchange_turn * threads;
        exchange[warp * 32 + lane] = half != 0 ? even : odd;
        float4 mine = half != 0 ? odd : even;
        named_barrier(1 + part, 64);
        const float4 other = exchange[(warp ^ 4) * 32 + lane];
        const uint2 x =
            *reinterpret_cast<const uint2*>(shared + Shared::inputs + ((t & 3) * streams + s) * threads * 8 + tid * 8);
        const float gate_i = fast_sigmoid(mine.x + other.x + low_half(x.x));
        const float gate_f = fast_sigmoid(mine.y + other.y + high_half(x.x));
        const float gate_g = fast_tanh(mine.z + other.z + low_half(x.y));
        const float gate_o = fast_sigmoid(mine.w + other.w + high_half(x.y));
        cell[s] = fmaf(gate_f, cell[s], gate_i * gate_g);
        bf16* outputs = reinterpret_cast<bf16*>(shared + Shared::outputs + (s * 8 + warp) * 64);
        outputs[quad * 8 + g] = __float2bfloat16(gate_o * fast_tanh(cell[s]));
        __syncwarp();
        const uint4 eight = *reinterpret_cast<const uint4*>(outputs + quad * 8);
        if (t + 1 < steps) {
          const std::uint32_t at = (s * 2 + (u ^ 1)) * hidden_bytes + (block * 32 + piece(2 * quad + half, part)) * 16;
          const std::uint32_t counted = Shared::barriers + (s * 2 + (u ^ 1)) * 8;
          store_async(to_a + Shared::hidden + at, eight, to_a + counted);
          store_async(to_b + Shared::hidden + at, eight, to_b + counted);
        }
        if (lane < 4) *reinterpret_cast<uint4*>(hidden_out + t * step_size + s * rows * features) = eight;
        if (t >= first_gates) {
          *reinterpret_cast<uint2*>(gates_out + (t * step_size + s * rows * features) * gates) =
              make_uint2(pack_pair(gate_i, gate_f), pack_pair(gate_g, gate_o));
        }
        if (t >= first_cell) cell_out[t * step_size + s * rows * features] = cell[s];
      }
      prefetch(t + 3);
    }
  }
  cluster_sync();  // nobody leaves while others still store into it
}

// ---- backward ----

template <int streams>
struct BackwardShared {
  // A block's 512 bytes from each block of the cluster, 64 more so that eight sources fall into different banks.
  static constexpr int source_bytes = 576;
  static constexpr int received_bytes = blocks * source_bytes;
  static constexpr int delta_bytes = rows * block_features * gates * 2;   // one stream's d sums of this block
  static constexpr int stage_bytes = threads * 16;                        // gates 8, cell before 4, d h 4
  static constexpr int received = 0;                                      // [streams][2][received_bytes]
  static constexpr int deltas = received + streams * 2 * received_bytes;  // [streams][2][delta_bytes]
  static constexpr int inputs = deltas + streams * 2 * delta_bytes;       // [4 stages][streams][stage_bytes]
  static constexpr int barriers = inputs + 4 * streams * stage_bytes;     // [streams][2]
  static constexpr int bytes = barriers + streams * 16;
};

// A block keeps the same 128 rows of the weights, now as K: it turns its own d sums into a partial d h of all 512
// features, of which warp w holds those of blocks 2 w and 2 w + 1, and every block adds up sixteen partials.
template <int streams>
__global__ void __launch_bounds__(threads, 1)
    backward_kernel(const __grid_constant__ ClusterLstmBackward net, int steps, int batch) {
  using Shared = BackwardShared<streams>;
  extern __shared__ __align__(128) unsigned char shared[];
  const int tid = static_cast<int>(threadIdx.x), lane = tid & 31, warp = tid >> 5;
  const int block = static_cast<int>(blockIdx.x) % blocks;
  const int first_row = static_cast<int>(blockIdx.x) / blocks * streams * rows;
  const int live = min(streams, (batch - first_row) / rows);
  std::uint32_t weight[4][8][4];
#pragma unroll
  for (int m = 0; m < 4; ++m) {
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const uint4 v = __ldg(net.weight + ((block * 8 + warp) * 32 + m * 8 + k) * 32 + lane);
      weight[m][k][0] = v.x, weight[m][k][1] = v.y, weight[m][k][2] = v.z, weight[m][k][3] = v.w;
    }
  }
  // A pair of threads shares a received word: a feature's two neighbouring batch rows.
  const int word = tid >> 1, odd = tid & 1, sender = word >> 2;
  const int local = (sender >> 2) * 4 + (word & 3);  // feature of the block's 32
  const int n = (sender & 3) * 2 + odd;
  const std::size_t step_size = static_cast<std::size_t>(batch) * features;
  const std::size_t own = static_cast<std::size_t>(first_row + n) * features + block * block_features + local;
  const bf16* gates_in = net.gates + own * gates;
  const bf16* delta_in = net.hidden_delta + (own & ~std::size_t{1});  // four bytes are the least that can be copied
  const float* cell_in = net.cell + own;
  const float* cell_first = net.cell_before + own;
  bf16* delta_out = net.sums_delta + own * gates;
  unsigned char* delta_slot =
      shared + Shared::deltas + ((local >> 3) * 32 + n * 4 + ((local & 7) >> 1)) * 16 + (local & 1) * 8;
  float cell_delta[streams], cell[streams];
#pragma unroll
  for (int s = 0; s < streams; ++s) {
    cell_delta[s] = 0.0f;
    cell[s] = s < live ? cell_in[(steps - 1) * step_size + s * rows * features] : 0.0f;
  }
  const std::uint32_t base = shared_address(shared);
  const auto prefetch = [&](int t) {
    if (t >= 0) {
#pragma unroll
      for (int s = 0; s < streams; ++s) {
        if (s >= live) continue;
        const std::uint32_t at = base + Shared::inputs + (((steps - 1 - t) & 3) * streams + s) * Shared::stage_bytes;
        const std::size_t from = t * step_size + s * rows * features;
        copy_async<8>(at + tid * 8, gates_in + from * gates);
        copy_async<4>(at + threads * 8 + tid * 4,
                      t > 0 ? cell_in + (from - step_size) : cell_first + s * rows * features);
        copy_async<4>(at + threads * 12 + tid * 4, delta_in + from);
      }
    }
    copy_commit();
  };
  prefetch(steps - 1), prefetch(steps - 2), prefetch(steps - 3);
  const std::uint32_t barriers = base + Shared::barriers;
  if (tid == 0) {
    for (int i = 0; i < streams * 2; ++i) barrier_init(barriers + i * 8);
    barrier_init_fence();
    for (int i = 0; i < streams * 2; ++i) barrier_expect(barriers + i * 8, blocks * 512);
  }
  const std::uint32_t to_a = in_block(base, 2 * warp), to_b = in_block(base, 2 * warp + 1);
  cluster_sync();
  __syncthreads();

  std::uint32_t phases = 0;
  for (int done = 0; done < steps; done += 2) {
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      const int t = steps - 1 - done - u;
      if (t < 0) break;
      copy_wait<2>();
#pragma unroll
      for (int s = 0; s < streams; ++s) {
        if (s >= live) continue;
        const int buffer = s * 2 + u;
        const unsigned char* staged = shared + Shared::inputs + (((done + u) & 3) * streams + s) * Shared::stage_bytes;
        const auto from_above = *reinterpret_cast<const std::uint32_t*>(staged + threads * 12 + tid * 4);
        float hidden_delta = (local & 1) != 0 ? high_half(from_above) : low_half(from_above);
        if (done + u > 0) {
          barrier_wait(barriers + buffer * 8, (phases >> buffer) & 1);
          phases ^= 1u << buffer;
          if (tid == 0) barrier_expect(barriers + buffer * 8, blocks * 512);
          // Each thread of a pair adds half of the sources for both rows, then they swap.
          const unsigned char* from =
              shared + Shared::received + buffer * Shared::received_bytes + odd * Shared::source_bytes + word * 4;
          float row0 = 0.0f, row1 = 0.0f, more0 = 0.0f, more1 = 0.0f;
#pragma unroll
          for (int i = 0; i < 8; i += 2) {
            const auto v = *reinterpret_cast<const std::uint32_t*>(from + i * 2 * Shared::source_bytes);
            const auto w = *reinterpret_cast<const std::uint32_t*>(from + (i + 1) * 2 * Shared::source_bytes);
            row0 += low_half(v), row1 += high_half(v), more0 += low_half(w), more1 += high_half(w);
          }
          row0 += more0, row1 += more1;
          const float other = __shfl_xor_sync(~0u, odd != 0 ? row0 : row1, 1);
          hidden_delta += (odd != 0 ? row1 : row0) + other;
        }
        const uint2 kept = *reinterpret_cast<const uint2*>(staged + tid * 8);
        const float cell_before = *reinterpret_cast<const float*>(staged + threads * 8 + tid * 4);
        const float gate_i = low_half(kept.x), gate_f = high_half(kept.x);
        const float gate_g = low_half(kept.y), gate_o = high_half(kept.y);
        const float squashed = fast_tanh(cell[s]);
        const float of_cell = fmaf(hidden_delta * gate_o, 1.0f - squashed * squashed, cell_delta[s]);
        const uint2 delta = make_uint2(
            pack_pair(of_cell * gate_g * gate_i * (1.0f - gate_i), of_cell * cell_before * gate_f * (1.0f - gate_f)),
            pack_pair(of_cell * gate_i * (1.0f - gate_g * gate_g), hidden_delta * squashed * gate_o * (1.0f - gate_o)));
        cell_delta[s] = of_cell * gate_f;
        cell[s] = cell_before;
        *reinterpret_cast<uint2*>(delta_slot + buffer * Shared::delta_bytes) = delta;
        __syncthreads();
        if (t > 0) {
          float partial[4][4] = {};
          const unsigned char* deltas = shared + Shared::deltas + buffer * Shared::delta_bytes + lane * 16;
#pragma unroll
          for (int kb = 0; kb < 4; ++kb) {
            const uint4 b = *reinterpret_cast<const uint4*>(deltas + kb * 512);
#pragma unroll
            for (int m = 0; m < 4; ++m) mma(partial[m], weight[m][kb * 2], b.x, b.y);
#pragma unroll
            for (int m = 0; m < 4; ++m) mma(partial[m], weight[m][kb * 2 + 1], b.z, b.w);
          }
          const auto packed = [&](int m) {
            return make_uint4(pack_pair(partial[m][0], partial[m][1]), pack_pair(partial[m][2], partial[m][3]),
                              pack_pair(partial[m + 1][0], partial[m + 1][1]),
                              pack_pair(partial[m + 1][2], partial[m + 1][3]));
          };
          const std::uint32_t at =
              Shared::received + (s * 2 + (u ^ 1)) * Shared::received_bytes + block * Shared::source_bytes + lane * 16;
          const std::uint32_t counted = Shared::barriers + (s * 2 + (u ^ 1)) * 8;
          store_async(to_a + at, packed(0), to_a + counted);
          store_async(to_b + at, packed(2), to_b + counted);
        }
        *reinterpret_cast<uint2*>(delta_out + (t * step_size + s * rows * features) * gates) = delta;
      }
      prefetch(t - 3);
    }
  }
  cluster_sync();
}

// Fragments (block, warp, tile m, k16 step) of a warp's lanes: rows are features 4 g + 2 (m % 2) and the next of block
// 2 warp + m / 2; along K a thread has the four gates of one feature.
__global__ void pack_kernel(const bf16* weight, uint4* packed) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int lane = i & 31, k = (i >> 5) & 7, m = (i >> 8) & 3, warp = (i >> 10) & 7, block = i >> 13;
  const int g = lane >> 2, quad = lane & 3;
  const int out = (2 * warp + (m >> 1)) * block_features + g * 4 + (m & 1) * 2;
  const int row = (block * block_features + (k >> 1) * 8 + 2 * quad + (k & 1)) * gates;
  const auto pair = [&](int r, int column) {
    const auto bits = [&](int which) {
      return static_cast<std::uint32_t>(
          __bfloat16_as_ushort(weight[static_cast<std::size_t>(which) * features + column]));
    };
    return bits(r) | bits(r + 1) << 16;
  };
  packed[i] = make_uint4(pair(row, out), pair(row, out + 1), pair(row + 2, out), pair(row + 2, out + 1));
}

// ---- launches ----

cudaLaunchConfig_t configuration(cudaStream_t stream, int clusters, int shared_bytes, cudaLaunchAttribute& attribute) {
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = blocks;
  attribute.val.clusterDim.y = 1;
  attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(clusters * blocks));
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return config;
}

template <class Kernel>
void allow(Kernel kernel, int shared_bytes) {
  QANAT_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  QANAT_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
}

template <class Kernel, class... Arguments>
void launch(Kernel kernel, cudaStream_t stream, int clusters, int shared_bytes, Arguments... arguments) {
  allow(kernel, shared_bytes);
  cudaLaunchAttribute attribute;
  const cudaLaunchConfig_t config = configuration(stream, clusters, shared_bytes, attribute);
  QANAT_CUDA(cudaLaunchKernelEx(&config, kernel, arguments...));
}

// Streams a cluster: as few as let all clusters run at once, else they would run one wave after the other.
int streams_of(int networks, int batch, int capacity) {
  const int streams = batch / rows;
  for (int each = 1; each < most_streams; ++each) {
    if (networks * ((streams + each - 1) / each) <= capacity) return each;
  }
  return most_streams;
}

int clusters_of(int batch, int streams) { return (batch / rows + streams - 1) / streams; }

template <int streams>
void forward(cudaStream_t stream, const ForwardNetworks& networks, int count, int steps, int batch) {
  const int clusters = clusters_of(batch, streams);
  launch(forward_kernel<streams>, stream, count * clusters, ForwardShared<streams>::bytes, networks, clusters, steps,
         batch);
}

template <int streams>
void backward(cudaStream_t stream, const ClusterLstmBackward& network, int steps, int batch) {
  launch(backward_kernel<streams>, stream, clusters_of(batch, streams), BackwardShared<streams>::bytes, network, steps,
         batch);
}

}  // namespace

int cluster_lstm_capacity() {
  int device = 0;
  int major = 0;
  QANAT_CUDA(cudaGetDevice(&device));
  QANAT_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  if (major != 9) return 0;
  const int shared_bytes = BackwardShared<most_streams>::bytes;  // the most that either kernel takes
  allow(backward_kernel<most_streams>, shared_bytes);
  cudaLaunchAttribute attribute;
  const cudaLaunchConfig_t config = configuration(nullptr, 1, shared_bytes, attribute);
  int clusters = 0;
  if (cudaOccupancyMaxActiveClusters(&clusters, backward_kernel<most_streams>, &config) != cudaSuccess) {
    cudaGetLastError();  // not an error of what comes next
    return 0;
  }
  return clusters;
}

void cluster_lstm_pack(cudaStream_t stream, const bf16* weight, uint4* packed) {
  constexpr int fragments = blocks * 8 * 4 * 8 * 32;
  pack_kernel<<<fragments / 256, 256, 0, stream>>>(weight, packed);
  QANAT_LAUNCHED("pack_kernel");
}

void cluster_lstm_forward(cudaStream_t stream, const ClusterLstmForward* network, int networks, int steps, int batch,
                          int capacity) {
  ForwardNetworks both;
  for (int i = 0; i < networks; ++i) both.network[i] = network[i];
  switch (streams_of(networks, batch, capacity)) {
    case 1:
      return forward<1>(stream, both, networks, steps, batch);
    case 2:
      return forward<2>(stream, both, networks, steps, batch);
    case 3:
      return forward<3>(stream, both, networks, steps, batch);
    default:
      return forward<most_streams>(stream, both, networks, steps, batch);
  }
}

void cluster_lstm_backward(cudaStream_t stream, const ClusterLstmBackward& network, int steps, int batch,
                           int capacity) {
  switch (streams_of(1, batch, capacity)) {
    case 1:
      return backward<1>(stream, network, steps, batch);
    case 2:
      return backward<2>(stream, network, steps, batch);
    case 3:
      return backward<3>(stream, network, steps, batch);
    default:
      return backward<most_streams>(stream, network, steps, batch);
  }
}

}  // namespace qanat::nn::cuda
