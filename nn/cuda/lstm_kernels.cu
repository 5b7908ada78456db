#include <cuda_bf16.h>

#include "nn/cuda/check.h"
#include "nn/cuda/device_code.h"
#include "nn/cuda/lstm_kernels.h"
#include "nn/lstm.h"

namespace qanat::nn::cuda {
namespace {

constexpr int threads = 256;

__device__ std::int64_t element() { return static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x; }

template <class T>
__device__ void put(T& to, float v) {
  to = narrow<T>(v);
}

template <class T>
__device__ LstmGates<float> load_gates(const T* from) {
  return {widen(from[0]), widen(from[1]), widen(from[2]), widen(from[3])};
}

template <class T>
__device__ void store_gates(T* to, const LstmGates<float>& gates) {
  put(to[0], gates.input), put(to[1], gates.forget), put(to[2], gates.cell), put(to[3], gates.output);
}

// One thread for eight neighbouring elements; both widths are multiples of eight.
template <class T>
__global__ void inputs_kernel(const LstmInputs<T> args) {
  const std::int64_t i = element();
  const int groups = args.width / 8;
  if (i >= args.samples * groups) return;
  const std::int64_t sample = i / groups;
  const int at = static_cast<int>(i % groups) * 8;
  auto* to = reinterpret_cast<Eight<T>*>(args.to) + i;
  if (at < args.features) {
    *to = *reinterpret_cast<const Eight<T>*>(args.below + sample * args.features + at);
    return;
  }
  Eight<T> out;
  for (int j = 0; j < 8; ++j) {
    const int extra = at + j - args.features;
    float value = 0;
    if (extra < args.actions) value = extra == args.previous_action[sample] ? 1.0f : 0.0f;
    if (extra == args.actions) value = args.previous_reward[sample];
    if (extra == args.actions + 1 || extra == args.actions + 2) value = 1;
    put(out.at[j], value);
  }
  *to = out;
}

template <class T>
__global__ void widen_kernel(const float* from, int from_row, T* to, int to_row, std::int64_t count) {
  const std::int64_t i = element();
  if (i >= count * to_row) return;
  const int at = static_cast<int>(i % to_row);
  put(to[i], at < from_row ? from[i / to_row * from_row + at] : 0.0f);
}

template <class T>
__global__ void cell_kernel(const LstmStep<T> args) {
  const std::int64_t i = element();
  if (i >= args.elements) return;
  LstmGates<float> sums = load_gates(args.sums + 4 * i);
  const float* recurrent = args.recurrent_sums + 4 * i;
  sums = {sums.input + recurrent[0], sums.forget + recurrent[1], sums.cell + recurrent[2], sums.output + recurrent[3]};
  const LstmGates<float> gates = lstm_gates(sums);
  const float cell = lstm_cell(gates, args.cell_before[i]);
  args.cell[i] = cell;
  put(args.hidden[i], gates.output * tanhf(cell));
  if (args.gates != nullptr) store_gates(args.gates + 4 * i, gates);
}

template <class T>
__global__ void cell_gradient_kernel(const LstmStepGradient<T> args) {
  const std::int64_t i = element();
  if (i >= args.elements) return;
  if (i % args.row >= args.features) {
    store_gates(args.sums_delta + 4 * i, {0, 0, 0, 0});
    return;
  }
  float hidden_delta = widen(args.hidden_delta[i]);
  if (!args.last) hidden_delta += args.recurrent_delta[i];
  float cell_delta = args.last ? 0.0f : args.cell_delta[i];
  const LstmGates<float> sums =
      lstm_cell_gradient(load_gates(args.gates + 4 * i), args.cell[i], args.cell_before[i], hidden_delta, cell_delta);
  args.cell_delta[i] = cell_delta;
  store_gates(args.sums_delta + 4 * i, sums);
}

}  // namespace

template <class T>
void lstm_inputs(cudaStream_t stream, const LstmInputs<T>& args) {
  inputs_kernel<<<blocks_for(args.samples * args.width / 8, threads), threads, 0, stream>>>(args);
  QANAT_LAUNCHED("inputs_kernel");
}

template <class T>
void lstm_widen(cudaStream_t stream, const float* from, int from_row, T* to, int to_row, std::int64_t count) {
  widen_kernel<<<blocks_for(count * to_row, threads), threads, 0, stream>>>(from, from_row, to, to_row, count);
  QANAT_LAUNCHED("widen_kernel");
}

template <class T>
void lstm_step(cudaStream_t stream, const LstmStep<T>& args) {
  cell_kernel<<<blocks_for(args.elements, threads), threads, 0, stream>>>(args);
  QANAT_LAUNCHED("cell_kernel");
}

template <class T>
void lstm_step_gradient(cudaStream_t stream, const LstmStepGradient<T>& args) {
  cell_gradient_kernel<<<blocks_for(args.elements, threads), threads, 0, stream>>>(args);
  QANAT_LAUNCHED("cell_gradient_kernel");
}

#define QANAT_LSTM_OF(T)                                                            \
  template void lstm_inputs(cudaStream_t, const LstmInputs<T>&);                    \
  template void lstm_widen(cudaStream_t, const float*, int, T*, int, std::int64_t); \
  template void lstm_step(cudaStream_t, const LstmStep<T>&);                        \
  template void lstm_step_gradient(cudaStream_t, const LstmStepGradient<T>&);

QANAT_LSTM_OF(float)
QANAT_LSTM_OF(__nv_bfloat16)

}  // namespace qanat::nn::cuda
