// Everything between the hidden layer and its gradient: head, dueling, double-Q target, loss, priorities, and the
// head's own gradients. The head is too thin for tensor cores to matter; sums are in f32.
#include "nn/cuda/device_code.h"
#include "nn/cuda/nature/kernels.h"

namespace qanat::nn::nature {
namespace {

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  return x;
}

// Eight bf16.
__device__ __forceinline__ void unpack8(const uint4& v, float* to) {
  const std::uint32_t pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    to[2 * i] = __uint_as_float(pairs[i] << 16);
    to[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
  }
}

constexpr int passes = 3;     // online s, online s', target s'
constexpr int row_parts = 4;  // warps that share a pass's head rows
constexpr int forward_warps = passes * row_parts;
constexpr int forward_threads = 32 * forward_warps;

// A lane's sixteen of 512 values: eight from 8 lane on, eight from 256 + 8 lane on.
struct Stream {
  uint4 halves[2];

  __device__ __forceinline__ void load(const __nv_bfloat16* from, int lane) {
    halves[0] = *reinterpret_cast<const uint4*>(from + 8 * lane);
    halves[1] = *reinterpret_cast<const uint4*>(from + 256 + 8 * lane);
  }
  __device__ __forceinline__ void unpack(float (&to)[16]) const {
    unpack8(halves[0], to);
    unpack8(halves[1], to + 8);
  }
};

__device__ __forceinline__ float dot(const float (&a)[16], const float (&b)[16]) {
  float sum = 0;
#pragma unroll
  for (int j = 0; j < 16; ++j) sum = fmaf(a[j], b[j], sum);
  return warp_sum(sum);
}

// What the warps of a block leave for one another.
template <int Samples>
struct ForwardShared {
  float rows[Samples][passes][most_rows + 1];  // head rows' outputs, then Q-values
  float4 sums[row_parts][head_width / 4];      // of the online head's advantage rows; then [0]: their mean
  float slope[Samples];                        // d loss / d Q(s, action)
  int action[Samples];
  std::uint8_t allowed[Samples][most_rows];
};

// One warp: its `Rows` head rows times the block's samples. All loads are under way before the first product.
template <int Samples, int Rows>
__device__ __forceinline__ void multiply_rows(const HeadForward& args, int first_sample, int pass, int part, int lane,
                                              ForwardShared<Samples>& shared) {
  const bool target = pass == 2;
  const int size = static_cast<int>(args.batch.size);
  const __nv_bfloat16* const head = target ? args.target_head : args.head;
  const __nv_bfloat16* const hidden = target ? args.target_hidden : args.hidden;
  const float* const bias = target ? args.target_bias : args.bias;
  const int first = part * Rows;
  const int count = min(Rows, args.shape.rows() - first);
  const bool has_value = args.shape.dueling && part == 0;  // row 0 is the value's: it reads the other stream
  if (count <= 0) {
    if (pass == 0) {
      for (int j = lane; j < head_width / 4; j += 32) shared.sums[part][j] = make_float4(0, 0, 0, 0);
    }
    return;
  }
  Stream weights[Rows];
#pragma unroll
  for (int i = 0; i < Rows; ++i) weights[i].load(head + (first + min(i, count - 1)) * head_width, lane);
  Stream main[Samples], value[Samples];
#pragma unroll
  for (int slot = 0; slot < Samples; ++slot) {
    const int sample = min(first_sample + slot, size - 1);
    const __nv_bfloat16* const from =
        hidden + static_cast<std::size_t>(pass == 1 ? size + sample : sample) * args.shape.hidden();
    main[slot].load(from + (args.shape.dueling ? head_width : 0), lane);
    value[slot] = main[slot];
    if (has_value) value[slot].load(from, lane);
  }
  const float my_bias = lane < count ? bias[first + lane] : 0.0f;
  float mine[Samples] = {};
  float column_sums[16] = {};
#pragma unroll
  for (int i = 0; i < Rows; ++i) {
    float w[16];
    weights[i].unpack(w);
    const bool is_value = has_value && i == 0;
    if (i < count && !is_value) {
#pragma unroll
      for (int j = 0; j < 16; ++j) column_sums[j] += w[j];
    }
#pragma unroll
    for (int slot = 0; slot < Samples; ++slot) {
      Stream from = main[slot];
      if (is_value) from = value[slot];
      float h[16];
      from.unpack(h);
      const float sum = dot(w, h);
      if (lane == i) mine[slot] = sum;
    }
  }
#pragma unroll
  for (int slot = 0; slot < Samples; ++slot) {
    if (lane < count) shared.rows[slot][pass][first + lane] = mine[slot] + my_bias;
  }
  if (pass != 0) return;
#pragma unroll
  for (int j = 0; j < 4; ++j) {  // columns 8 lane to 8 lane + 7, then 256 more
    const float* const c = column_sums + 4 * j;
    shared.sums[part][(j >> 1) * 64 + 2 * lane + (j & 1)] = make_float4(c[0], c[1], c[2], c[3]);
  }
}

// Leaves the mean of the online head's advantage rows in sums[0]. By the whole block.
template <int Samples>
__device__ __forceinline__ void average_rows(ForwardShared<Samples>& shared, int actions) {
  const float share = 1.0f / static_cast<float>(actions);
  for (int i = static_cast<int>(threadIdx.x); i < head_width / 4; i += forward_threads) {
    float4 mean = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int part = 0; part < row_parts; ++part) {
      const float4 s = shared.sums[part][i];
      mean = make_float4(mean.x + s.x, mean.y + s.y, mean.z + s.z, mean.w + s.w);
    }
    shared.sums[0][i] = make_float4(mean.x * share, mean.y * share, mean.z * share, mean.w * share);
  }
}

// rows[lane] -> Q of action `lane` (any value where there is none).
__device__ __forceinline__ float combine_streams(const Shape& shape, const float* rows, int lane) {
  const float mine = lane < shape.rows() ? rows[lane] : 0.0f;
  if (!shape.dueling) return mine;
  const float value = __shfl_sync(~0u, mine, 0);
  const float mean = (warp_sum(mine) - value) / static_cast<float>(shape.actions);
  const float advantage = __shfl_sync(~0u, mine, lane + 1);
  return value + (advantage - mean);
}

// The gradient before the hidden layer's relu, of the block's samples. It has rank one: with g = d loss / d Q(s, a) it
// is g v for the value's features and g (w_a - mean w) for the advantages', where h > 0.
template <int Samples>
__device__ __forceinline__ void write_deltas(const HeadForward& args, int first_sample,
                                             const ForwardShared<Samples>& shared) {
  const int size = static_cast<int>(args.batch.size);
  const int hidden = args.shape.hidden();
  const int vectors = hidden / 8;
  for (int i = static_cast<int>(threadIdx.x); i < Samples * vectors; i += forward_threads) {
    const int slot = i / vectors;
    const int feature = (i - slot * vectors) * 8;
    if (first_sample + slot >= size) return;
    const bool is_value = args.shape.dueling && feature < head_width;
    const bool centred = args.shape.dueling && !is_value;
    const int row = is_value ? 0 : shared.action[slot] + (args.shape.dueling ? 1 : 0);
    const int column = feature % head_width;
    const std::size_t at = static_cast<std::size_t>(first_sample + slot) * hidden + feature;
    float h[8], w[8];
    unpack8(*reinterpret_cast<const uint4*>(args.hidden + at), h);
    unpack8(*reinterpret_cast<const uint4*>(args.head + row * head_width + column), w);
    if (centred) {
      const float4* const mean = shared.sums[0] + column / 4;
      const float means[8] = {mean[0].x, mean[0].y, mean[0].z, mean[0].w, mean[1].x, mean[1].y, mean[1].z, mean[1].w};
#pragma unroll
      for (int j = 0; j < 8; ++j) w[j] -= means[j];
    }
    float delta[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) delta[j] = h[j] > 0 ? shared.slope[slot] * w[j] : 0.0f;
    __nv_bfloat162 packed[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) packed[j] = __floats2bfloat162_rn(delta[2 * j], delta[2 * j + 1]);
    *reinterpret_cast<uint4*>(args.hidden_delta + at) = *reinterpret_cast<const uint4*>(packed);
  }
}

template <int Samples, int Rows>
__global__ void __launch_bounds__(forward_threads) head_forward_kernel(const __grid_constant__ HeadForward args) {
  __shared__ ForwardShared<Samples> shared;
  const int warp = static_cast<int>(threadIdx.x) >> 5;
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const int pass = warp % passes;
  const cuda::DeviceBatch& batch = args.batch;
  const int size = static_cast<int>(batch.size);
  const int actions = args.shape.actions;
  const int first = static_cast<int>(blockIdx.x) * Samples;
  const int mine = first + warp;  // after the products, warp i finishes sample i
  const bool finishes = warp < Samples && mine < size;
  std::int32_t action = 0;
  float returns = 0, bootstrap = 0, weight = 0;
  if (finishes) {  // asked for early: they are long under way
    action = batch.action[mine];
    returns = batch.returns[mine];
    bootstrap = batch.bootstrap[mine];
    weight = batch.weight[mine] / static_cast<float>(size);
    const std::uint8_t mask = lane < actions ? batch.next_mask[static_cast<std::size_t>(mine) * actions + lane] : 0;
    shared.allowed[warp][lane] = batch.head->masked != 0 ? mask : 1;
  }
  if (pass != 1 || args.td.double_q) {
    multiply_rows<Samples, Rows>(args, first, pass, warp / passes, lane, shared);
  }
  __syncthreads();
  if (args.shape.dueling) average_rows(shared, actions);
  if (finishes) {
#pragma unroll
    for (int p = 0; p < passes; ++p) {
      const float value = combine_streams(args.shape, shared.rows[warp][p], lane);
      __syncwarp();
      shared.rows[warp][p][lane] = value;
    }
    __syncwarp();
    const auto& q = shared.rows[warp];
    const std::int64_t best = cuda::warp_argmax(q[args.td.double_q ? 1 : 2], shared.allowed[warp], actions);
    if (lane == 0) {
      const float target = td_target(returns, bootstrap, q[2][best], args.td);
      const TdTerms<float> terms = td_terms(q[0][action], target, args.td);
      args.td_abs[mine] = fabsf(terms.td);
      args.terms[mine] = make_float4(weight * terms.gradient, weight * terms.loss, q[0][action], 0);
      shared.slope[warp] = weight * terms.gradient;
      shared.action[warp] = action;
    }
  }
  __syncthreads();
  write_deltas(args, first, shared);
}

constexpr int gradient_warps = 32;
constexpr int gradient_threads = 32 * gradient_warps;
constexpr int gradient_depth = 8;  // samples that a warp has loads in flight for

// What the update reports of the batch, by one block in a fixed order; and of the step what does not hang on the norm:
// its powers take a while, and nobody waits for them here.
__device__ void report_batch(const HeadGradients& args, int size, float* scratch) {
  float loss = 0, q = 0;
  for (int b = static_cast<int>(threadIdx.x); b < size; b += gradient_threads) {
    loss += args.terms[b].y;
    q += args.terms[b].z;
  }
  loss = cuda::block_sum(loss, scratch);
  q = cuda::block_sum(q, scratch);
  if (threadIdx.x != 0) return;
  args.report->loss = loss;
  args.report->mean_q = q / static_cast<float>(size);
  args.clock->scalars = step_scalars<float>(args.rule, args.batch.head->learning_rate, args.clock->steps + 1);
}

// A block has 32 neighbouring hidden features, a lane each; its warps share the samples. An action's samples are added
// up first, sums[a] += g h, and centred at the end. One block more does the same for the head's bias, a feature that is
// always 1, and adds up what the update reports.
__global__ void __launch_bounds__(gradient_threads) head_gradients_kernel(const __grid_constant__ HeadGradients args) {
  extern __shared__ float sums[];  // [warps][choices][32]
  __shared__ float scratch[32];
  __shared__ float bias_sums[gradient_warps][32];
  const int size = static_cast<int>(args.batch.size);
  const int actions = args.shape.actions;
  const int hidden = args.shape.hidden();
  const int warp = static_cast<int>(threadIdx.x) >> 5;
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const int first = static_cast<int>(blockIdx.x) * 32;
  const bool is_bias = first == hidden;
  const bool is_value = args.shape.dueling && first < head_width;
  const bool centred = args.shape.dueling && !is_value;
  const int choices = is_value ? 1 : actions;
  // The bias's block: lane 0 is the value's, lane 1 the actions'.
  const bool always_first = is_value || (is_bias && args.shape.dueling && lane == 0);
  const auto feature_of = [&](int b) { return static_cast<std::size_t>(b) * hidden + first + lane; };

  float* const mine = sums + warp * choices * 32 + lane;
  for (int a = 0; a < choices; ++a) mine[a * 32] = 0;
  float bias_sum = 0;
  for (int from = warp; from < size; from += gradient_warps * gradient_depth) {
    float g[gradient_depth], h[gradient_depth], delta[gradient_depth];
    int choice[gradient_depth];
#pragma unroll
    for (int i = 0; i < gradient_depth; ++i) {
      const int b = min(from + i * gradient_warps, size - 1);
      g[i] = from + i * gradient_warps < size ? args.terms[b].x : 0.0f;
      choice[i] = always_first ? 0 : args.batch.action[b];
      h[i] = is_bias ? 1.0f : __bfloat162float(args.hidden[feature_of(b)]);
      delta[i] = is_bias ? 0.0f : __bfloat162float(args.hidden_delta[feature_of(b)]);
    }
#pragma unroll
    for (int i = 0; i < gradient_depth; ++i) {
      mine[choice[i] * 32] += g[i] * h[i];
      if (from + i * gradient_warps < size) bias_sum += delta[i];
    }
  }
  bias_sums[warp][lane] = bias_sum;
  __syncthreads();
  for (int a = warp; a < choices; a += gradient_warps) {
    float total = 0;
#pragma unroll
    for (int w = 0; w < gradient_warps; ++w) total += sums[(w * choices + a) * 32 + lane];
    sums[a * 32 + lane] = total;
  }
  if (warp == gradient_warps - 1 && !is_bias) {
    float total = 0;
#pragma unroll
    for (int w = 0; w < gradient_warps; ++w) total += bias_sums[w][lane];
    args.gradients[args.shape.hidden_bias() + first + lane] = total;
  }
  __syncthreads();
  float centre = 0;
  if (centred) {
    for (int a = 0; a < choices; ++a) centre += sums[a * 32 + lane];
    centre /= static_cast<float>(actions);
  }
  const int first_row = centred ? 1 : 0;
  float* const weight = args.gradients + args.shape.head_weight();
  float* const bias = args.gradients + args.shape.head_bias();
  for (int a = warp; a < choices; a += gradient_warps) {
    const float gradient = sums[a * 32 + lane] - centre;
    if (!is_bias) weight[(first_row + a) * head_width + (first + lane) % head_width] = gradient;
    if (is_bias && lane == 1) bias[first_row + a] = gradient;
    if (is_bias && lane == 0 && a == 0 && args.shape.dueling) bias[0] = sums[0];
  }
  if (is_bias) report_batch(args, size, scratch);
}

int gradient_shared_bytes(int actions) { return gradient_warps * actions * 32 * static_cast<int>(sizeof(float)); }

template <int Samples>
void launch_head_forward(cudaStream_t stream, const HeadForward& args) {
  const int blocks = (static_cast<int>(args.batch.size) + Samples - 1) / Samples;
  const int rows = (args.shape.rows() + row_parts - 1) / row_parts;
  const auto launch = [&](auto kernel) { kernel<<<blocks, forward_threads, 0, stream>>>(args); };
  if (rows <= 2) {
    launch(head_forward_kernel<Samples, 2>);
  } else if (rows <= 5) {
    launch(head_forward_kernel<Samples, 5>);
  } else {
    launch(head_forward_kernel<Samples, 8>);
  }
}

}  // namespace

void prepare_heads() {
  QANAT_CUDA(cudaFuncSetAttribute(head_gradients_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  gradient_shared_bytes(most_rows)));
}

// Few samples a block while that still fills the device; else four, which share the reading of the head.
void head_forward(cudaStream_t stream, const HeadForward& args, int multiprocessors) {
  if (args.batch.size <= 2 * multiprocessors) {
    launch_head_forward<1>(stream, args);
  } else {
    launch_head_forward<4>(stream, args);
  }
  QANAT_LAUNCHED("head_forward");
}

void head_gradients(cudaStream_t stream, const HeadGradients& args) {
  const int blocks = args.shape.hidden() / 32 + 1;
  head_gradients_kernel<<<blocks, gradient_threads, gradient_shared_bytes(args.shape.actions), stream>>>(args);
  QANAT_LAUNCHED("head_gradients");
}

}  // namespace qanat::nn::nature
