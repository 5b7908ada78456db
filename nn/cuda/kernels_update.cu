// The loss over a batch, and the optimiser's passes over the flat blocks.
#include "nn/cuda/device_code.h"
#include "nn/cuda/kernels.h"

namespace qanat::nn::cuda {
namespace {

constexpr int td_threads = 256;
constexpr int step_threads = 256;

// One warp a sample, and one block more for what of the next step's scalars does not hang on the norm: their powers
// take as long as the rest. The last block adds the blocks' partial sums in order. Shapes as TdInputs has them.
template <class D>
__global__ void td_kernel(TdInputs in, D* delta) {
  __shared__ double scratch[32];
  const std::int64_t b = (blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x) / 32;
  const bool first_lane = threadIdx.x % 32 == 0;
  const DeviceBatch& batch = in.batch;
  double loss = 0, q_sum = 0;
  if (blockIdx.x + 1 == gridDim.x) {
    if (threadIdx.x == 0) {
      in.clock->scalars = step_scalars<float>(in.rule, batch.head->learning_rate, in.clock->steps + 1);
    }
  } else if (b < batch.size) {
    const std::uint8_t* mask = batch.head->masked != 0 ? batch.next_mask + b * in.actions : nullptr;
    const std::int64_t best = warp_argmax(in.choosing + b * in.q_row, mask, in.actions);
    const float bootstrap = batch.bootstrap[b];
    // Library calls turn NaN into 0 in a relu: rows that are not finite are told apart when they are loaded.
    const float next_q = in.bad_next[b] != 0 ? nanf("") : in.target[b * in.q_row + best];
    const float target = td_target<float>(batch.returns[b], bootstrap, next_q, in.options);
    const std::int64_t action = batch.action[b];
    const float q = in.bad_state[b] != 0 ? nanf("") : in.q[b * in.q_row + action];
    const TdTerms<float> terms = td_terms<float>(q, target, in.options);
    const float weight = batch.weight[b] / static_cast<float>(batch.size);
    D* row = delta + b * in.delta_row;
    for (std::int64_t a = threadIdx.x % 32; a < in.actions; a += 32) {
      row[a] = narrow<D>(a == action ? weight * terms.gradient : 0.0f);
    }
    __syncwarp();
    if (first_lane) {
      loss = static_cast<double>(weight) * static_cast<double>(terms.loss);
      q_sum = q;
      in.td_abs[b] = fabsf(terms.td);
      in.bad_state[b] = 0;
      in.bad_next[b] = 0;
    }
  }
  loss = block_sum(loss, scratch);
  q_sum = block_sum(q_sum, scratch);
  if (threadIdx.x == 0) {
    in.partial[2 * blockIdx.x] = loss;
    in.partial[2 * blockIdx.x + 1] = q_sum;
  }
  if (!last_block(in.counter)) return;
  double total_loss = 0, total_q = 0;
  for (unsigned block = threadIdx.x; block < gridDim.x; block += blockDim.x) {
    total_loss += __ldcg(in.partial + 2 * block);
    total_q += __ldcg(in.partial + 2 * block + 1);
  }
  total_loss = block_sum(total_loss, scratch);
  total_q = block_sum(total_q, scratch);
  if (threadIdx.x == 0) {
    in.report->loss = total_loss;
    in.report->mean_q = total_q / static_cast<double>(batch.size);
  }
}

__device__ float4 widen4(const float* from) { return *reinterpret_cast<const float4*>(from); }
__device__ float4 widen4(const __nv_bfloat16* from) {
  const uint2 bits = *reinterpret_cast<const uint2*>(from);
  return {__uint_as_float(bits.x << 16), __uint_as_float(bits.x & 0xffff0000u), __uint_as_float(bits.y << 16),
          __uint_as_float(bits.y & 0xffff0000u)};
}
__device__ void narrow4(__nv_bfloat16* to, float4 x) {
  const __nv_bfloat162 low = __floats2bfloat162_rn(x.x, x.y), high = __floats2bfloat162_rn(x.z, x.w);
  *reinterpret_cast<uint2*>(to) = {*reinterpret_cast<const unsigned*>(&low), *reinterpret_cast<const unsigned*>(&high)};
}

// What decides about the step; run by one thread once the norm is known.
__device__ void decide(double squared_norm, OptimizerClock& clock, const BatchHead& head, const OptimizerRule& rule,
                       UpdateReport& report) {
  report.grad_norm = sqrt(squared_norm);
  const bool finite = isfinite(report.loss) && isfinite(report.grad_norm);
  report.finite = finite ? 1 : 0;
  clock.finite = finite ? 1 : 0;
  const bool sync = clock.sync_pending != 0 || head.sync_target != 0;
  clock.sync_pending = sync && !finite ? 1 : 0;
  if (!finite) return;
  ++clock.steps;
  complete_scalars(clock.scalars, rule, sync, report.grad_norm);
}

// gradient: [count] in groups of four. Sums of squares: f32 within a thread, f64 from there.
template <class T>
__global__ void norm_kernel(OptimizerBlocks blocks, NarrowSegments narrow, const T* narrow_gradient,
                            const BatchHead* head, OptimizerRule rule, UpdateReport* report) {
  __shared__ double scratch[32];
  const std::int64_t step = std::int64_t{4} * gridDim.x * blockDim.x;
  const std::int64_t first = 4 * (blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x);
  float sum = 0;
  for (std::int64_t i = first; i < blocks.count; i += 4 * step) {
    float4 g[4];
#pragma unroll
    for (int u = 0; u < 4; ++u) {  // in flight together
      const std::int64_t at = i + u * step;
      g[u] = at < blocks.count ? widen4(blocks.gradient + at) : float4{0, 0, 0, 0};
    }
#pragma unroll
    for (int u = 0; u < 4; ++u) {
      const std::int64_t at = i + u * step;
      bool widened = false;
      for (int s = 0; s < narrow.count; ++s) widened = widened || (at >= narrow.begin[s] && at < narrow.end[s]);
      if (widened) {
        g[u] = widen4(narrow_gradient + at);
        *reinterpret_cast<float4*>(blocks.gradient + at) = g[u];
      }
      sum += (g[u].x * g[u].x + g[u].y * g[u].y) + (g[u].z * g[u].z + g[u].w * g[u].w);
    }
  }
  const double block = block_sum(static_cast<double>(sum), scratch);
  if (threadIdx.x == 0) blocks.partial[blockIdx.x] = block;
  if (!last_block(blocks.counter)) return;
  double total = 0;
  for (unsigned i = threadIdx.x; i < gridDim.x; i += blockDim.x) total += __ldcg(blocks.partial + i);
  total = block_sum(total, scratch);
  if (threadIdx.x == 0) decide(total, *blocks.clock, *head, rule, *report);
}

// All blocks: [count] in groups of four; one group a thread.
template <class T>
__global__ void __launch_bounds__(step_threads)
    step_kernel(OptimizerBlocks blocks, bool adam, bool centered, T* copy, T* target_copy) {
  if (blocks.clock->finite == 0) return;
  const std::int64_t i = 4 * (blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x);
  if (i >= blocks.count) return;
  const StepScalars<float> s = blocks.clock->scalars;
  float4 p = *reinterpret_cast<float4*>(blocks.parameter + i);
  float4 m = *reinterpret_cast<float4*>(blocks.mean + i);
  float4 v = *reinterpret_cast<float4*>(blocks.square + i);
  const float4 g = *reinterpret_cast<const float4*>(blocks.gradient + i);
  const auto rule = [&](float& parameter, float gradient, float& mean, float& square) {
    if (adam)
      adam_rule(parameter, gradient, mean, square, s);
    else
      rmsprop_rule(parameter, gradient, mean, square, centered, s);
  };
  rule(p.x, g.x, m.x, v.x);
  rule(p.y, g.y, m.y, v.y);
  rule(p.z, g.z, m.z, v.z);
  rule(p.w, g.w, m.w, v.w);
  *reinterpret_cast<float4*>(blocks.parameter + i) = p;
  *reinterpret_cast<float4*>(blocks.mean + i) = m;
  *reinterpret_cast<float4*>(blocks.square + i) = v;
  if constexpr (sizeof(T) == 2) narrow4(copy + i, p);
  if (s.tau == 0) return;
  float4 t = p;
  if (s.tau != 1) {
    t = *reinterpret_cast<float4*>(blocks.target + i);
    t = {t.x + s.tau * (p.x - t.x), t.y + s.tau * (p.y - t.y), t.z + s.tau * (p.z - t.z), t.w + s.tau * (p.w - t.w)};
  }
  *reinterpret_cast<float4*>(blocks.target + i) = t;
  if constexpr (sizeof(T) == 2) narrow4(target_copy + i, t);
}

__global__ void gather_kernel(const float* block, const std::uint32_t* elements, std::int64_t count, float* canonical) {
  const std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (i < count) canonical[i] = block[elements[i]];
}

template <class T>
__global__ void scatter_kernel(const float* canonical, const std::uint32_t* elements, std::int64_t count, float* block,
                               T* copy) {
  const std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (i >= count) return;
  block[elements[i]] = canonical[i];
  if constexpr (sizeof(T) == 2) copy[elements[i]] = narrow<T>(canonical[i]);
}

}  // namespace

std::int64_t td_blocks(std::int64_t batch) { return blocks_for(32 * batch, td_threads) + 1; }

template <class D>
void td_update(cudaStream_t stream, const TdInputs& inputs, D* delta) {
  td_kernel<<<static_cast<unsigned>(td_blocks(inputs.batch.size)), td_threads, 0, stream>>>(inputs, delta);
  QANAT_LAUNCHED("td_update");
}

template <class T>
void gradient_norm(cudaStream_t stream, const OptimizerBlocks& blocks, const NarrowSegments& narrow,
                   const T* narrow_gradient, const BatchHead* head, const OptimizerRule& rule, UpdateReport* report) {
  norm_kernel<<<optimizer_blocks, step_threads, 0, stream>>>(blocks, narrow, narrow_gradient, head, rule, report);
  QANAT_LAUNCHED("gradient_norm");
}

template <class T>
void optimizer_step(cudaStream_t stream, const OptimizerBlocks& blocks, const OptimizerRule& rule, T* copy,
                    T* target_copy) {
  step_kernel<<<blocks_for(blocks.count / 4, step_threads), step_threads, 0, stream>>>(blocks, rule.adam, rule.centered,
                                                                                       copy, target_copy);
  QANAT_LAUNCHED("optimizer_step");
}

void gather_elements(cudaStream_t stream, const float* block, const std::uint32_t* elements, std::int64_t count,
                     float* canonical) {
  gather_kernel<<<blocks_for(count, step_threads), step_threads, 0, stream>>>(block, elements, count, canonical);
  QANAT_LAUNCHED("gather_elements");
}

template <class T>
void scatter_elements(cudaStream_t stream, const float* canonical, const std::uint32_t* elements, std::int64_t count,
                      float* block, T* copy) {
  scatter_kernel<<<blocks_for(count, step_threads), step_threads, 0, stream>>>(canonical, elements, count, block, copy);
  QANAT_LAUNCHED("scatter_elements");
}

#define QANAT_UPDATE_OF(T)                                                                              \
  template void td_update<T>(cudaStream_t, const TdInputs&, T*);                                        \
  template void gradient_norm<T>(cudaStream_t, const OptimizerBlocks&, const NarrowSegments&, const T*, \
                                 const BatchHead*, const OptimizerRule&, UpdateReport*);                \
  template void optimizer_step<T>(cudaStream_t, const OptimizerBlocks&, const OptimizerRule&, T*, T*);  \
  template void scatter_elements<T>(cudaStream_t, const float*, const std::uint32_t*, std::int64_t, float*, T*);

QANAT_UPDATE_OF(__nv_bfloat16)
QANAT_UPDATE_OF(float)

}  // namespace qanat::nn::cuda
