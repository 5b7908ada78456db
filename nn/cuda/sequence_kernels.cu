#include "nn/cuda/check.h"
#include "nn/cuda/device_code.h"
#include "nn/cuda/sequence_kernels.h"
#include "nn/sequence_td.h"

namespace qanat::nn::cuda {
namespace {

constexpr int threads = 128;

// Largest value over the block, NaN if there is one. `scratch`: [32] shared.
__device__ float block_max(float value, float* scratch) {
  const auto larger = [](float a, float b) { return a > b || isnan(a) ? a : b; };
  for (int step = 16; step > 0; step /= 2) value = larger(value, __shfl_xor_sync(~0u, value, step));
  __syncthreads();
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  value = scratch[0];
  for (unsigned warp = 1; warp < (blockDim.x + 31) / 32; ++warp) value = larger(value, scratch[warp]);
  return value;
}

// Whether all that sequence b is computed from is finite; threads look at parts of it. Library calls turn NaN into 0 in
// a relu, so the Q-values need not tell.
__device__ bool finite_inputs(const SequenceTdInputs& in, std::int64_t b, std::int64_t length) {
  bool finite = true;
  for (std::int64_t t = threadIdx.x; t < in.burn_in + in.unroll; t += blockDim.x) {
    const std::int64_t at = t * in.size + b;
    if (t < length) finite = finite && in.bad[at] == 0 && isfinite(in.batch.previous_reward[at]);
    in.bad[at] = 0;
  }
  for (std::int64_t j = threadIdx.x; j < in.features; j += blockDim.x) {
    finite = finite && isfinite(in.batch.hidden[b * in.features + j]) && isfinite(in.batch.cell[b * in.features + j]);
  }
  return finite;
}

struct Step {
  float q, td, loss, gradient;
};

// Step u after the burn-in of sequence b, which has a window.
__device__ Step learn(const SequenceTdInputs& in, std::int64_t b, std::int64_t u, const SequenceWindow& window) {
  const std::int64_t at = (in.burn_in + u) * in.size + b;
  const SequenceReturn<float> r = sequence_return<float>(in.batch.reward + at, in.size, window, in.gamma);
  const std::int64_t next = ((u + window.steps) * in.size + b) * in.q_row;
  const std::uint8_t* mask =
      in.batch.head->masked != 0 ? in.batch.mask + (at + window.steps * in.size) * in.actions : nullptr;
  const float* choosing = (in.td.double_q ? in.online_q : in.target_q) + next;
  const float next_q = in.target_q[next + masked_argmax(choosing, 1, mask, in.actions)];
  const float q = in.online_q[(u * in.size + b) * in.q_row + in.batch.action[at]];
  const TdTerms<float> terms = td_terms(q, td_target(r.returns, r.bootstrap, next_q, in.td), in.td);
  return {q, terms.td, terms.loss, terms.gradient};
}

// One block a sequence; the last one adds up in order.
__global__ void td_kernel(const SequenceTdInputs in) {
  __shared__ double scratch[32];
  __shared__ float float_scratch[32];
  const std::int64_t b = blockIdx.x;
  const std::int64_t length = in.batch.length[b];
  const SequenceEnd end = in.batch.end[b];
  if (b == 0 && threadIdx.x == 0) {
    in.clock->scalars = step_scalars<float>(in.rule, in.batch.head->learning_rate, in.clock->steps + 1);
  }
  const float weight = in.batch.weight[b] / static_cast<float>(in.size);
  const bool finite = __syncthreads_and(finite_inputs(in, b, length)) != 0;
  double loss = finite ? 0.0 : nan("");
  double q = 0, size = 0, steps = 0;
  float largest = 0;
  for (std::int64_t u = threadIdx.x; u < in.unroll; u += blockDim.x) {
    const SequenceWindow window = sequence_window(in.burn_in + u, length, end, in.n_step);
    float term = 0;
    if (window.steps > 0) {
      const Step step = learn(in, b, u, window);
      term = weight * step.gradient;
      loss += static_cast<double>(weight) * static_cast<double>(step.loss);
      q += step.q;
      size += fabsf(step.td);
      steps += 1;
      if (!(fabsf(step.td) <= largest)) largest = fabsf(step.td);
    }
    in.terms[u * in.size + b] = make_float4(term, 0, 0, 0);
  }
  loss = block_sum(loss, scratch);
  q = block_sum(q, scratch);
  size = block_sum(size, scratch);
  steps = block_sum(steps, scratch);
  largest = block_max(largest, float_scratch);
  if (threadIdx.x == 0) {
    in.priorities[b] =
        sequence_priority(largest, static_cast<float>(size), static_cast<std::int64_t>(steps), in.priority_eta);
    double* partial = in.partial + 3 * b;
    partial[0] = loss, partial[1] = q, partial[2] = steps;
  }
  if (!last_block(in.counter)) return;
  double total_loss = 0, total_q = 0, total_steps = 0;
  for (std::int64_t i = threadIdx.x; i < in.size; i += blockDim.x) {
    const double* partial = in.partial + 3 * i;
    total_loss += __ldcg(partial);
    total_q += __ldcg(partial + 1);
    total_steps += __ldcg(partial + 2);
  }
  total_loss = block_sum(total_loss, scratch);
  total_q = block_sum(total_q, scratch);
  total_steps = block_sum(total_steps, scratch);
  if (threadIdx.x == 0) {
    in.report->loss = total_loss;
    in.report->mean_q = total_q / total_steps;
  }
}

template <class D>
__global__ void delta_kernel(const SequenceTdInputs in, std::int64_t row, D* delta) {
  const std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (i >= in.unroll * in.size * row) return;
  const std::int64_t sample = i / row;
  const bool taken = i % row == in.batch.action[in.burn_in * in.size + sample];
  delta[i] = narrow<D>(taken ? in.terms[sample].x : 0.0f);
}

// One thread for one element of a partial sum.
__global__ void partials_kernel(const TorsoPartials args) {
  using namespace nature;
  int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= partial1 + partial2 + partial3) return;
  const auto add_up = [&](const float* partials, int pitch, int count) {
    float sum = 0;
#pragma unroll 8
    for (int p = 0; p < count; ++p) sum += partials[static_cast<std::size_t>(p) * pitch + i];
    return sum;
  };
  if (i < partial1) {  // of scaled deltas, and the weights' with respect to whole pixels
    const bool weight = i < conv1_weights;
    const int place = weight ? conv1_weight + fragment_conv1(i) : conv1_bias + i - conv1_weights;
    const float factor = (weight ? args.input_scale : 1.0f) / *args.delta1_scale;
    args.gradients[place] = factor * add_up(args.partials1, partial1, args.split.conv1);
    return;
  }
  i -= partial1;
  if (i < partial2) {
    const int place = i < conv2_weights ? conv2_weight + fragment_conv2(i) : conv2_bias + i - conv2_weights;
    args.gradients[place] = add_up(args.partials2, partial2, args.split.conv2);
    return;
  }
  i -= partial2;
  const int place = i < conv3_weights ? conv3_weight + fragment_conv3(i) : conv3_bias + i - conv3_weights;
  args.gradients[place] = add_up(args.partials3, partial3, args.split.conv3);
}

}  // namespace

void sequence_td(cudaStream_t stream, const SequenceTdInputs& inputs) {
  td_kernel<<<static_cast<unsigned>(inputs.size), threads, 0, stream>>>(inputs);
  QANAT_LAUNCHED("sequence_td");
}

template <class D>
void sequence_delta(cudaStream_t stream, const SequenceTdInputs& inputs, std::int64_t row, D* delta) {
  delta_kernel<<<blocks_for(inputs.unroll * inputs.size * row, 256), 256, 0, stream>>>(inputs, row, delta);
  QANAT_LAUNCHED("sequence_delta");
}

void sum_torso_partials(cudaStream_t stream, const TorsoPartials& args) {
  constexpr int elements = nature::partial1 + nature::partial2 + nature::partial3;
  partials_kernel<<<blocks_for(elements, threads), threads, 0, stream>>>(args);
  QANAT_LAUNCHED("sum_torso_partials");
}

template void sequence_delta(cudaStream_t, const SequenceTdInputs&, std::int64_t, float*);
template void sequence_delta(cudaStream_t, const SequenceTdInputs&, std::int64_t, __nv_bfloat16*);

}  // namespace qanat::nn::cuda
