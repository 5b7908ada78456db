// Layers that no library call covers, forward and backward.
#include <algorithm>

#include "nn/cuda/device_code.h"
#include "nn/cuda/kernels.h"
#include "nn/layer_norm.h"

namespace qanat::nn::cuda {
namespace {

constexpr int threads = 256;
constexpr int mask_threads = 256;
constexpr std::int64_t most_mask_blocks = 264;  // two on each of an H100's 132 multiprocessors

__device__ float rectify(float x) { return x < 0 ? 0.0f : x; }  // NaN stays

// in, out: [count / 8] groups of eight.
template <class T>
__global__ void relu_kernel(const Eight<T>* in, Eight<T>* out, std::int64_t groups) {
  const std::int64_t group = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (group >= groups) return;
  Eight<T> x = in[group];
  for (T& value : x.at) value = narrow<T>(rectify(widen(value)));
  out[group] = x;
}

// to: [rows][columns] in groups of eight columns; bias [columns].
template <class T>
__global__ void add_bias_kernel(Eight<T>* to, const Eight<T>* bias, std::int64_t groups, std::int64_t row_groups,
                                bool relu) {
  const std::int64_t group = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (group >= groups) return;
  Eight<T> x = to[group];
  const Eight<T> b = bias[group % row_groups];
  for (int i = 0; i < 8; ++i) {
    const float sum = widen(x.at[i]) + widen(b.at[i]);
    x.at[i] = narrow<T>(relu ? rectify(sum) : sum);
  }
  to[group] = x;
}

// value, delta: [rows][columns], rows apart as the shape says. A block takes 32 columns (blockIdx.y) and a share of the
// rows (blockIdx.x); a thread stays with eight columns. Threads add up in shared memory, the grid's last block adds up
// the blocks, both in a fixed order.
template <class T>
__global__ void __launch_bounds__(mask_threads)
    mask_kernel(MaskShape shape, const T* value, T* delta, float* sums, float* scratch, unsigned* counter) {
  __shared__ float part[mask_threads / 4][33];
  const unsigned lane = threadIdx.x / 4;
  const std::int64_t column = blockIdx.y * std::int64_t{32} + threadIdx.x % 4 * 8;
  float sum[8] = {};
  if (column < shape.columns) {
#pragma unroll 4
    for (std::int64_t r = blockIdx.x * std::int64_t{mask_threads / 4} + lane; r < shape.rows;
         r += gridDim.x * std::int64_t{mask_threads / 4}) {
      auto* at = reinterpret_cast<Eight<T>*>(delta + r * shape.delta_row + column);
      Eight<T> d = *at;
      if (value != nullptr) {
        const Eight<T> v = *reinterpret_cast<const Eight<T>*>(value + r * shape.value_row + column);
        for (int i = 0; i < 8; ++i) {
          if (!(widen(v.at[i]) > 0)) d.at[i] = narrow<T>(0.0f);
        }
        *at = d;
      }
      for (int i = 0; i < 8; ++i) sum[i] += widen(d.at[i]);
    }
  }
  if (sums == nullptr) return;
  for (int i = 0; i < 8; ++i) part[lane][threadIdx.x % 4 * 8 + i] = sum[i];
  __syncthreads();
  // Eight threads a column, each an eighth of the lanes.
  const unsigned eighth = threadIdx.x % 8, own = threadIdx.x / 8;
  float total = 0;
  for (unsigned l = eighth; l < mask_threads / 4; l += 8) total += part[l][own];
  for (int step = 4; step > 0; step /= 2) total += __shfl_xor_sync(~0u, total, step);
  const std::int64_t own_column = blockIdx.y * std::int64_t{32} + own;
  const bool stores = eighth == 0 && own_column < shape.columns;
  if (gridDim.x == 1) {
    if (stores) sums[own_column] = total;
    return;
  }
  if (stores) scratch[blockIdx.x * shape.columns + own_column] = total;
  if (counter == nullptr || !last_block(counter)) return;
  for (std::int64_t first = 0; first < shape.columns; first += mask_threads / 8) {
    const std::int64_t c = first + own;
    total = 0;
    if (c < shape.columns) {
#pragma unroll 16
      for (unsigned block = eighth; block < gridDim.x; block += 8) total += __ldcg(scratch + block * shape.columns + c);
    }
    for (int step = 4; step > 0; step /= 2) total += __shfl_xor_sync(~0u, total, step);
    if (c < shape.columns && eighth == 0) sums[c] = total;
  }
}

// sums [columns] := sums over the blocks of scratch [blocks][columns].
__global__ void add_blocks_kernel(const float* scratch, unsigned blocks, std::int64_t columns, float* sums) {
  const std::int64_t column = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (column >= columns) return;
  float total = 0;
#pragma unroll 8
  for (unsigned block = 0; block < blocks; ++block) total += scratch[block * columns + column];
  sums[column] = total;
}

struct Moments {
  float mean, inverse_deviation;
};

// Of one sample's real features; the block works on it together.
template <class T>
__device__ Moments moments_of(const ViewLayout& in, const T* x, float* scratch) {
  const std::int64_t width = in.width();
  const auto features = static_cast<float>(in.pixels * in.channels);
  float sum = 0;
  for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x) sum += widen(x[i]);  // the padding is zero
  const float mean = block_sum(sum, scratch) / features;
  float square = 0;
  for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x) {
    const float off = widen(x[i]) - mean;
    if (i % in.padded_channels < in.channels) square += off * off;
  }
  return {mean, rsqrtf(block_sum(square, scratch) / features + static_cast<float>(layer_norm_epsilon))};
}

// One block a sample. in, out: [samples] rows; gain, bias: [width].
template <class T>
__global__ void layer_norm_kernel(NormShape shape, const T* in, const float* gain, const float* bias, T* out,
                                  bool relu) {
  __shared__ float scratch[32];
  const T* x = in + blockIdx.x * shape.in_row;
  T* y = out + blockIdx.x * shape.out_row;
  const Moments m = moments_of(shape.in, x, scratch);
  for (std::int64_t i = threadIdx.x; i < shape.in.width(); i += blockDim.x) {
    const float value = gain[i] * (widen(x[i]) - m.mean) * m.inverse_deviation + bias[i];
    const bool real = i % shape.in.padded_channels < shape.in.channels;
    y[i] = narrow<T>(!real ? 0.0f : relu ? rectify(value) : value);
  }
}

// One block a sample. With n = (x - mean) / deviation and g = gain dy: dx = (g - mean(g) - n mean(g n)) / deviation.
template <class T>
__global__ void layer_norm_delta_kernel(NormShape shape, const T* in, const float* gain, const T* out_delta,
                                        T* in_delta, std::int64_t in_delta_row, bool accumulate, bool relu_in,
                                        float2* moments) {
  __shared__ float scratch[32];
  const T* x = in + blockIdx.x * shape.in_row;
  const T* dy = out_delta + blockIdx.x * shape.out_row;
  const Moments m = moments_of(shape.in, x, scratch);
  if (threadIdx.x == 0) moments[blockIdx.x] = {m.mean, m.inverse_deviation};
  if (in_delta == nullptr) return;
  const std::int64_t width = shape.in.width();
  float sum_g = 0, sum_gn = 0;
  for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x) {
    const float g = gain[i] * widen(dy[i]);  // gain is zero in the padding
    sum_g += g;
    sum_gn += g * (widen(x[i]) - m.mean) * m.inverse_deviation;
  }
  const auto features = static_cast<float>(shape.in.pixels * shape.in.channels);
  const float mean_g = block_sum(sum_g, scratch) / features;
  const float mean_gn = block_sum(sum_gn, scratch) / features;
  T* dx = in_delta + blockIdx.x * in_delta_row;
  for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x) {
    const float value = widen(x[i]);
    const float normal = (value - m.mean) * m.inverse_deviation;
    float d = (gain[i] * widen(dy[i]) - mean_g - normal * mean_gn) * m.inverse_deviation;
    if (i % shape.in.padded_channels >= shape.in.channels || (relu_in && !(value > 0))) d = 0;
    dx[i] = narrow<T>(accumulate ? widen(dx[i]) + d : d);
  }
}

// (32, 8) threads for 32 features; sums over the samples in a fixed order.
template <class T>
__global__ void layer_norm_parameters_kernel(NormShape shape, const T* in, const T* out_delta, const float2* moments,
                                             float* gain_gradient, float* bias_gradient) {
  __shared__ float gains[8][33], biases[8][33];
  const unsigned lane = threadIdx.x % 32, slice = threadIdx.x / 32;
  const std::int64_t i = blockIdx.x * std::int64_t{32} + lane;
  float gain = 0, bias = 0;
  if (i < shape.in.width() && i % shape.in.padded_channels < shape.in.channels) {
    for (std::int64_t b = slice; b < shape.samples; b += 8) {
      const float2 m = moments[b];
      const float dy = widen(out_delta[b * shape.out_row + i]);
      gain += dy * (widen(in[b * shape.in_row + i]) - m.x) * m.y;
      bias += dy;
    }
  }
  gains[slice][lane] = gain;
  biases[slice][lane] = bias;
  __syncthreads();
  if (slice != 0 || i >= shape.in.width()) return;
  for (int s = 1; s < 8; ++s) {
    gain += gains[s][lane];
    bias += biases[s][lane];
  }
  gain_gradient[i] = gain;
  bias_gradient[i] = bias;
}

// One warp a sample.
__global__ void dueling_kernel(DuelingShape shape, const float* streams, float* q) {
  const std::int64_t sample = (blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x) / 32;
  if (sample >= shape.samples) return;
  const float* advantage = streams + sample * shape.in_row + shape.advantage;
  float sum = 0;
  for (std::int64_t a = threadIdx.x % 32; a < shape.actions; a += 32) sum += advantage[a];
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  const float mean = sum / static_cast<float>(shape.actions);
  const float value = streams[sample * shape.in_row + shape.value];
  for (std::int64_t a = threadIdx.x % 32; a < shape.actions; a += 32) {
    q[sample * shape.q_row + a] = value + (advantage[a] - mean);
  }
}

// One warp a sample: the value's gradient is the sum, an advantage's what is above the mean.
template <class T>
__global__ void dueling_delta_kernel(DuelingShape shape, const float* q_delta, T* streams_delta) {
  const std::int64_t sample = (blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x) / 32;
  if (sample >= shape.samples) return;
  const float* dq = q_delta + sample * shape.q_row;
  float sum = 0;
  for (std::int64_t a = threadIdx.x % 32; a < shape.actions; a += 32) sum += dq[a];
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  T* out = streams_delta + sample * shape.in_row;
  if (threadIdx.x % 32 == 0) out[shape.value] = narrow<T>(sum);
  for (std::int64_t a = threadIdx.x % 32; a < shape.actions; a += 32) {
    out[shape.advantage + a] = narrow<T>(dq[a] - sum / static_cast<float>(shape.actions));
  }
}

template <class T>
const Eight<T>* eights(const T* from) {
  return reinterpret_cast<const Eight<T>*>(from);
}
template <class T>
Eight<T>* eights(T* from) {
  return reinterpret_cast<Eight<T>*>(from);
}

}  // namespace

template <class T>
void relu_forward(cudaStream_t stream, const T* in, T* out, std::int64_t count) {
  relu_kernel<<<blocks_for(count / 8, threads), threads, 0, stream>>>(eights(in), eights(out), count / 8);
  QANAT_LAUNCHED("relu_forward");
}

template <class T>
void add_bias(cudaStream_t stream, T* to, const T* bias, std::int64_t rows, std::int64_t columns, bool relu) {
  const std::int64_t groups = rows * columns / 8;
  add_bias_kernel<<<blocks_for(groups, threads), threads, 0, stream>>>(eights(to), eights(bias), groups, columns / 8,
                                                                       relu);
  QANAT_LAUNCHED("add_bias");
}

std::int64_t sums_scratch(std::int64_t columns) { return most_mask_blocks * columns; }

template <class T>
void mask_and_sum(cudaStream_t stream, const MaskShape& shape, const T* value, T* delta, float* sums, float* scratch,
                  unsigned* counter) {
  // Few columns are summed over many blocks. Many columns of few rows fill the card by themselves, and the last block
  // would be slow; many columns of many rows are added up by a launch of their own.
  const std::int64_t slices = (shape.rows + 4 * (mask_threads / 4) - 1) / (4 * (mask_threads / 4));
  const unsigned column_blocks = blocks_for(shape.columns, 32);
  const bool wide = column_blocks > 8 && sums != nullptr;
  const bool tall = slices >= 8;
  const std::int64_t most =
      std::max<std::int64_t>(1, wide ? (tall ? 528 / column_blocks : 1) : most_mask_blocks / column_blocks);
  const dim3 grid(static_cast<unsigned>(std::clamp<std::int64_t>(slices, 1, std::min(most, most_mask_blocks))),
                  column_blocks);
  const bool apart = wide && grid.x > 1;
  mask_kernel<<<grid, mask_threads, 0, stream>>>(shape, value, delta, sums, scratch, apart ? nullptr : counter);
  QANAT_LAUNCHED("mask_and_sum");
  if (!apart) return;
  add_blocks_kernel<<<blocks_for(shape.columns, 64), 64, 0, stream>>>(scratch, grid.x, shape.columns, sums);
  QANAT_LAUNCHED("mask_and_sum, blocks");
}

template <class T>
void layer_norm_forward(cudaStream_t stream, const NormShape& shape, const T* in, const float* gain, const float* bias,
                        T* out, bool relu) {
  layer_norm_kernel<<<static_cast<unsigned>(shape.samples), threads, 0, stream>>>(shape, in, gain, bias, out, relu);
  QANAT_LAUNCHED("layer_norm_forward");
}

template <class T>
void layer_norm_backward(cudaStream_t stream, const NormShape& shape, const T* in, const float* gain,
                         const T* out_delta, T* in_delta, std::int64_t in_delta_row, bool accumulate, bool relu_in,
                         float* moments, float* gain_gradient, float* bias_gradient) {
  auto* pairs = reinterpret_cast<float2*>(moments);
  layer_norm_delta_kernel<<<static_cast<unsigned>(shape.samples), threads, 0, stream>>>(
      shape, in, gain, out_delta, in_delta, in_delta_row, accumulate, relu_in, pairs);
  QANAT_LAUNCHED("layer_norm_backward, deltas");
  layer_norm_parameters_kernel<<<blocks_for(shape.in.width(), 32), threads, 0, stream>>>(shape, in, out_delta, pairs,
                                                                                         gain_gradient, bias_gradient);
  QANAT_LAUNCHED("layer_norm_backward, parameters");
}

void dueling_forward(cudaStream_t stream, const DuelingShape& shape, const float* streams, float* q) {
  dueling_kernel<<<blocks_for(32 * shape.samples, threads), threads, 0, stream>>>(shape, streams, q);
  QANAT_LAUNCHED("dueling_forward");
}

template <class T>
void dueling_backward(cudaStream_t stream, const DuelingShape& shape, const float* q_delta, T* streams_delta) {
  dueling_delta_kernel<<<blocks_for(32 * shape.samples, threads), threads, 0, stream>>>(shape, q_delta, streams_delta);
  QANAT_LAUNCHED("dueling_backward");
}

#define QANAT_LAYERS_OF(T)                                                                                             \
  template void relu_forward<T>(cudaStream_t, const T*, T*, std::int64_t);                                             \
  template void add_bias<T>(cudaStream_t, T*, const T*, std::int64_t, std::int64_t, bool);                             \
  template void mask_and_sum<T>(cudaStream_t, const MaskShape&, const T*, T*, float*, float*, unsigned*);              \
  template void layer_norm_forward<T>(cudaStream_t, const NormShape&, const T*, const float*, const float*, T*, bool); \
  template void layer_norm_backward<T>(cudaStream_t, const NormShape&, const T*, const float*, const T*, T*,           \
                                       std::int64_t, bool, bool, float*, float*, float*);                              \
  template void dueling_backward<T>(cudaStream_t, const DuelingShape&, const float*, T*);

QANAT_LAYERS_OF(__nv_bfloat16)
QANAT_LAYERS_OF(float)

}  // namespace qanat::nn::cuda
