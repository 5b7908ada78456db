// The end of an update: partial sums become gradients, the norm decides the step, and one pass over the flat block
// takes it and refreshes all that follows from the parameters.
//
// The pass is bound by memory (28 bytes a parameter), so the norm is not taken in a pass of its own over everything:
// the torso's squares fall out of adding its partial sums up, and only the dense part is read twice, from the cache,
// while the torso's gradients are still being computed.
// Nearly all parameters are the linear layer's weights: their gradients are summed up in f32 and stored in bf16.
#include "nn/cuda/device_code.h"
#include "nn/cuda/nature/kernels.h"

namespace qanat::nn::nature {
namespace {

using cuda::block_sum;

__device__ __forceinline__ float square_sum(const float4& x) { return x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w; }
__device__ __forceinline__ float4 widen4(const uint2& four) {
  return make_float4(__uint_as_float(four.x << 16), __uint_as_float(four.x & 0xffff0000u),
                     __uint_as_float(four.y << 16), __uint_as_float(four.y & 0xffff0000u));
}

// What decide() reads beside the norm, asked for before the norm is known.
struct Known {
  double loss;
  std::int64_t steps;
  bool sync;
  StepScalars<float> scalars;

  __device__ explicit Known(const FinishGradients& args)
      : loss(args.report->loss),
        steps(args.clock->steps),
        sync(args.clock->sync_pending != 0 || args.head->sync_target != 0),
        scalars(args.clock->scalars) {}
};

__device__ void decide(const FinishGradients& args, Known known, double squares) {
  const double norm = sqrt(squares);
  const bool finite = isfinite(norm) && isfinite(known.loss);
  args.report->grad_norm = norm;
  args.report->finite = finite ? 1 : 0;
  complete_scalars(known.scalars, args.rule, known.sync, norm);
  *args.clock = {.steps = known.steps + (finite ? 1 : 0),
                 .sync_pending = !finite && known.sync ? 1 : 0,
                 .finite = finite ? 1 : 0,
                 .scalars = known.scalars};
}

constexpr int columns1 = partial1 / 4;
constexpr int columns2 = partial2 / 4;
constexpr int columns = dense / 4;
constexpr int partial_blocks = (columns + 31) / 32;
constexpr int dense_norm_blocks = 264;  // two a multiprocessor of an H100
static_assert(partial_blocks + dense_norm_blocks == square_sums);
static_assert(columns1 + columns2 + partial3 / 4 == columns);

// Where the sum at element i of a partial sum belongs in the private layout.
__device__ __forceinline__ int place_of(int convolution, int i) {
  if (convolution == 0) return i < conv1_weights ? conv1_weight + fragment_conv1(i) : conv1_bias + i - conv1_weights;
  if (convolution == 1) return i < conv2_weights ? conv2_weight + fragment_conv2(i) : conv2_bias + i - conv2_weights;
  return i < conv3_weights ? conv3_weight + fragment_conv3(i) : conv3_bias + i - conv3_weights;
}

// Of one block: 32 columns of four sums, eight slices of the partial sums each.
__device__ __forceinline__ void add_partials(const FinishGradients& args, int block) {
  __shared__ float4 slices[256];
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const int slice = static_cast<int>(threadIdx.x) >> 5;
  int column = block * 32 + lane;
  const bool exists = column < columns;
  int convolution = 0;
  const float* partials = args.partials1;
  int count = args.split.conv1;
  int pitch = partial1;
  if (column >= columns1 + columns2) {
    convolution = 2;
    column -= columns1 + columns2;
    partials = args.partials3;
    count = args.split.conv3;
    pitch = partial3;
  } else if (column >= columns1) {
    convolution = 1;
    column -= columns1;
    partials = args.partials2;
    count = args.split.conv2;
    pitch = partial2;
  }
  float4 sum = make_float4(0, 0, 0, 0);
  const auto add = [&sum](const float4& x) {
    sum.x += x.x;
    sum.y += x.y;
    sum.z += x.z;
    sum.w += x.w;
  };
  if (exists) {
#pragma unroll 4
    for (int i = slice; i < count; i += 8) {
      add(__ldcg(reinterpret_cast<const float4*>(partials + static_cast<std::size_t>(i) * pitch) + column));
    }
  }
  slices[threadIdx.x] = sum;
  __syncthreads();
  if (slice == 0) {
#pragma unroll
    for (int i = 1; i < 8; ++i) add(slices[i * 32 + lane]);
    float factor = 1;
    if (convolution == 0) {  // of scaled deltas, and the weights' with respect to whole pixels
      factor = (column < conv1_weights / 4 ? args.input_scale : 1.0f) / *args.delta1_scale;
    }
    const float values[4] = {sum.x * factor, sum.y * factor, sum.z * factor, sum.w * factor};
    float squares = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (!exists) continue;
      args.gradients[place_of(convolution, column * 4 + i)] = values[i];
      squares += values[i] * values[i];
    }
    double all = squares;
    for (int offset = 16; offset > 0; offset /= 2) all += __shfl_xor_sync(~0u, all, offset);
    if (lane == 0) args.squares[block] = static_cast<float>(all);
  }
}

__global__ void __launch_bounds__(256) dense_squares_kernel(const __grid_constant__ FinishGradients args) {
  __shared__ double scratch[32];
  const int first = static_cast<int>(blockIdx.x) * 256 + static_cast<int>(threadIdx.x);
  const uint4* const linear = reinterpret_cast<const uint4*>(args.linear_gradients);
  float sum = 0;
#pragma unroll 4
  for (int i = first; i < args.shape.linear_weights() / 8; i += dense_norm_blocks * 256) {
    const uint4 eight = linear[i];
    sum += square_sum(widen4({eight.x, eight.y})) + square_sum(widen4({eight.z, eight.w}));
  }
  const float4* const others = reinterpret_cast<const float4*>(args.gradients + args.shape.hidden_bias());
  for (int i = first; i < (args.shape.parameters() - args.shape.hidden_bias()) / 4; i += dense_norm_blocks * 256) {
    sum += square_sum(others[i]);
  }
  const double all = block_sum(static_cast<double>(sum), scratch);
  if (threadIdx.x == 0) args.squares[partial_blocks + blockIdx.x] = static_cast<float>(all);
}

__global__ void __launch_bounds__(256) finish_kernel(const __grid_constant__ FinishGradients args) {
  __shared__ double scratch[32];
  add_partials(args, static_cast<int>(blockIdx.x));
  if (!cuda::last_block(args.counter)) return;
  const Known known(args);
  double mine = 0;
  for (int i = static_cast<int>(threadIdx.x); i < square_sums; i += 256) {
    mine += static_cast<double>(__ldcg(args.squares + i));
  }
  const double squares = block_sum(mine, scratch);
  if (threadIdx.x == 0) decide(args, known, squares);
}

// What follows from new parameters: one function a part of the block, used after a step and after the host's setting.

// Block of 256 threads: channel `n` of conv1, a weight each. The packed bias takes off what 1024 + pixel adds.
__device__ void write_conv1(const Network& to, float input_scale, int n, float weight, float bias, double* scratch) {
  const int i = static_cast<int>(threadIdx.x);
  const __half packed = __float2half_rn(weight);
  reinterpret_cast<__half*>(to.packed)[packed_conv1(n, i >> 6, (i >> 3) & 7, i & 7)] = packed;
  const double sum = block_sum(static_cast<double>(__half2float(packed)), scratch);
  if (i == 0) {
    reinterpret_cast<float*>(to.packed + packed_weight_bytes)[n] =
        static_cast<float>(bias - 1024.0 * static_cast<double>(input_scale) * sum);
  }
}

// Parameter i of conv2 or conv3.
__device__ void write_conv(const Network& to, int i, float value) {
  float* const biases = reinterpret_cast<float*>(to.packed + packed_weight_bytes);
  const __nv_bfloat16 packed = __float2bfloat16_rn(value);
  if (i < conv2_bias) {
    i -= conv2_weight;
    const int n = i >> 9, c = (i >> 4) & 31, y = (i >> 2) & 3, x = i & 3;
    reinterpret_cast<__nv_bfloat16*>(to.packed + packed1_bytes)[packed_conv2(n, c, y, x)] = packed;
    if (to.packed_back == nullptr) return;
    reinterpret_cast<__nv_bfloat16*>(to.packed_back + packed3_bytes)[packed_back_conv2(n, c, y, x)] = packed;
  } else if (i < conv3_weight) {
    biases[32 + i - conv2_bias] = value;
  } else if (i < conv3_bias) {
    i -= conv3_weight;
    const int n = i / 576, c = i / 9 % 64, y = i % 9 / 3, x = i % 3;
    reinterpret_cast<__nv_bfloat16*>(to.packed + packed1_bytes + packed2_bytes)[packed_conv3(n, c, y, x)] = packed;
    if (to.packed_back == nullptr) return;
    reinterpret_cast<__nv_bfloat16*>(to.packed_back)[packed_back_conv3(n, c, y, x)] = packed;
  } else {
    biases[96 + i - conv3_bias] = value;
  }
}

// Vector i of the dense part.
__device__ __forceinline__ void write_dense(const Network& to, int i, const float4& value) {
  __nv_bfloat162* const copy = reinterpret_cast<__nv_bfloat162*>(to.dense_copy) + 2 * i;
  const __nv_bfloat162 pairs[2] = {__floats2bfloat162_rn(value.x, value.y), __floats2bfloat162_rn(value.z, value.w)};
  *reinterpret_cast<uint2*>(copy) = *reinterpret_cast<const uint2*>(pairs);
}

// The grid of apply_kernel and refresh_kernel: 32 blocks for conv1's channels, then conv2 and conv3 a parameter a
// thread, then the dense part a vector a thread.
constexpr int conv1_blocks = 32;
constexpr int conv_blocks = (dense - conv2_weight + 255) / 256;
int grid_of(const Shape& shape) { return conv1_blocks + conv_blocks + (shape.dense_parameters() / 4 + 255) / 256; }

__device__ __forceinline__ void step_one(const OptimizerRule& rule, const StepScalars<float>& s, float gradient,
                                         float& parameter, float& mean, float& square) {
  if (rule.adam) {
    adam_rule(parameter, gradient, mean, square, s);
  } else {
    rmsprop_rule(parameter, gradient, mean, square, rule.centered, s);
  }
}

__device__ __forceinline__ float follow(float target, float online, float tau) {
  return tau == 1.0f ? online : target + tau * (online - target);
}

// Parameter i of the torso: takes the step, lets the target follow, returns both.
__device__ float2 step_torso(const ApplyStep& args, const StepScalars<float>& s, int i) {
  float parameter = args.online.parameters[i];
  float mean = args.mean[i];
  float square = args.square[i];
  step_one(args.rule, s, args.gradients[i], parameter, mean, square);
  args.online.parameters[i] = parameter;
  args.mean[i] = mean;
  args.square[i] = square;
  float target = 0;
  if (s.tau > 0) {
    target = follow(args.target.parameters[i], parameter, s.tau);
    args.target.parameters[i] = target;
  }
  return make_float2(parameter, target);
}

__device__ void apply_conv1(const ApplyStep& args, const StepScalars<float>& s, int n) {
  __shared__ double scratch[32];
  const float2 weight = step_torso(args, s, conv1_weight + n * 256 + static_cast<int>(threadIdx.x));
  float2 bias = make_float2(0, 0);
  if (threadIdx.x == 0) bias = step_torso(args, s, conv1_bias + n);
  write_conv1(args.online, args.input_scale, n, weight.x, bias.x, scratch);
  if (s.tau > 0) write_conv1(args.target, args.input_scale, n, weight.y, bias.y, scratch);
}

// Vector i of the dense part. Whether a step is taken at all is asked for together with what it takes.
__device__ void apply_dense(const ApplyStep& args, int i) {
  if (i >= args.shape.dense_parameters() / 4) return;
  float4* const parameters = reinterpret_cast<float4*>(args.online.parameters + dense);
  float4* const means = reinterpret_cast<float4*>(args.mean + dense);
  float4* const squares = reinterpret_cast<float4*>(args.square + dense);
  const float4 g = i < args.shape.linear_weights() / 4
                       ? widen4(reinterpret_cast<const uint2*>(args.linear_gradients)[i])
                       : reinterpret_cast<const float4*>(args.gradients + dense)[i];
  float4 p = parameters[i];
  float4 m = means[i];
  float4 v = squares[i];
  if (args.clock->finite == 0) return;
  const StepScalars<float> s = args.clock->scalars;
  step_one(args.rule, s, g.x, p.x, m.x, v.x);
  step_one(args.rule, s, g.y, p.y, m.y, v.y);
  step_one(args.rule, s, g.z, p.z, m.z, v.z);
  step_one(args.rule, s, g.w, p.w, m.w, v.w);
  parameters[i] = p;
  means[i] = m;
  squares[i] = v;
  write_dense(args.online, i, p);
  if (s.tau > 0) {
    float4* const target = reinterpret_cast<float4*>(args.target.parameters + dense) + i;
    float4 t = *target;
    t = make_float4(follow(t.x, p.x, s.tau), follow(t.y, p.y, s.tau), follow(t.z, p.z, s.tau), follow(t.w, p.w, s.tau));
    *target = t;
    write_dense(args.target, i, t);
  }
}

__global__ void __launch_bounds__(256) apply_kernel(const __grid_constant__ ApplyStep args) {
  const int block = static_cast<int>(blockIdx.x);
  if (block >= conv1_blocks + conv_blocks) {
    apply_dense(args, (block - conv1_blocks - conv_blocks) * 256 + static_cast<int>(threadIdx.x));
    return;
  }
  if (args.clock->finite == 0) return;
  if (block < conv1_blocks) {
    apply_conv1(args, args.clock->scalars, block);
    return;
  }
  const int i = conv2_weight + (block - conv1_blocks) * 256 + static_cast<int>(threadIdx.x);
  if (i >= dense) return;
  const StepScalars<float> s = args.clock->scalars;
  const float2 value = step_torso(args, s, i);
  write_conv(args.online, i, value.x);
  if (s.tau > 0) write_conv(args.target, i, value.y);
}

__global__ void __launch_bounds__(256) widen_kernel(const uint2* from, int vectors, float4* to) {
  const int i = static_cast<int>(blockIdx.x) * 256 + static_cast<int>(threadIdx.x);
  if (i < vectors) to[i] = widen4(from[i]);
}

__global__ void __launch_bounds__(256) refresh_kernel(const Shape shape, float input_scale, const Network network) {
  __shared__ double scratch[32];
  int block = static_cast<int>(blockIdx.x);
  if (block < conv1_blocks) {
    const float weight = network.parameters[conv1_weight + block * 256 + threadIdx.x];
    write_conv1(network, input_scale, block, weight, network.parameters[conv1_bias + block], scratch);
    return;
  }
  block -= conv1_blocks;
  if (block < conv_blocks) {
    const int i = conv2_weight + block * 256 + static_cast<int>(threadIdx.x);
    if (i < dense) write_conv(network, i, network.parameters[i]);
    return;
  }
  const int i = (block - conv_blocks) * 256 + static_cast<int>(threadIdx.x);
  if (i >= shape.dense_parameters() / 4) return;
  write_dense(network, i, reinterpret_cast<const float4*>(network.parameters + dense)[i]);
}

}  // namespace

void dense_squares(cudaStream_t stream, const FinishGradients& args) {
  dense_squares_kernel<<<dense_norm_blocks, 256, 0, stream>>>(args);
  QANAT_LAUNCHED("dense_squares");
}

void finish_gradients(cudaStream_t stream, const FinishGradients& args) {
  finish_kernel<<<partial_blocks, 256, 0, stream>>>(args);
  QANAT_LAUNCHED("finish_gradients");
}

void apply_step(cudaStream_t stream, const ApplyStep& args) {
  apply_kernel<<<grid_of(args.shape), 256, 0, stream>>>(args);
  QANAT_LAUNCHED("apply_step");
}

void refresh_torso(cudaStream_t stream, float input_scale, const Network& network) {
  refresh_kernel<<<conv1_blocks + conv_blocks, 256, 0, stream>>>(Shape{}, input_scale, network);
  QANAT_LAUNCHED("refresh_torso");
}

void refresh_copies(cudaStream_t stream, const Shape& shape, float input_scale, const Network& network) {
  refresh_kernel<<<grid_of(shape), 256, 0, stream>>>(shape, input_scale, network);
  QANAT_LAUNCHED("refresh_copies");
}

void widen_linear_gradients(cudaStream_t stream, const Shape& shape, const __nv_bfloat16* linear_gradients,
                            float* gradients) {
  const int vectors = shape.linear_weights() / 4;
  widen_kernel<<<(vectors + 255) / 256, 256, 0, stream>>>(reinterpret_cast<const uint2*>(linear_gradients), vectors,
                                                          reinterpret_cast<float4*>(gradients + dense));
  QANAT_LAUNCHED("widen_linear_gradients");
}

}  // namespace qanat::nn::nature
