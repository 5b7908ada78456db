#include "nn/cuda/lstm.h"

#include <cuda_bf16.h>

#include <algorithm>
#include <type_traits>

#include "nn/cuda/lstm_kernels.h"
#include "nn/cuda/precision.h"
#include "nn/cuda/sm90a/lstm_cluster.h"

namespace qanat::nn::cuda {
namespace {

template <class T>
GemmShape product(std::int64_t m, std::int64_t n, std::int64_t k, bool tf32) {
  return {.m = m,
          .n = n,
          .k = k,
          .a_row = k,
          .b_row = n,
          .d_row = n,
          .in = LibraryType<T>::cublas,
          .out = CUDA_R_32F,
          .tf32 = tf32};
}

// sums = inputs * weight.
template <class T>
GemmShape project_shape(const LstmShape& s, bool tf32) {
  GemmShape shape = product<T>(s.steps * s.batch, 4 * s.row, s.inputs(), tf32);
  shape.out = LibraryType<T>::cublas;
  return shape;
}

// One step's sums = h * weight^T.
template <class T>
GemmShape step_shape(const LstmShape& s, bool tf32) {
  GemmShape shape = product<T>(s.batch, 4 * s.row, s.row, tf32);
  shape.b_row = s.row;
  shape.b_transposed = true;
  return shape;
}

// d below = d sums * weight^T, of the weight's first rows.
template <class T>
GemmShape below_back_shape(const LstmShape& s, bool tf32) {
  GemmShape shape = product<T>(s.learnt(), s.below, 4 * s.row, tf32);
  shape.b_row = 4 * s.row;
  shape.b_transposed = true;
  shape.out = LibraryType<T>::cublas;
  return shape;
}

// d weight = a^T * b, both [learnt, ...].
template <class T>
GemmShape weight_shape(const LstmShape& s, std::int64_t m, std::int64_t n, bool tf32) {
  GemmShape shape = product<T>(m, n, s.learnt(), tf32);
  shape.a_row = m;
  shape.a_transposed = true;
  return shape;
}

template <class T>
int capacity_for(const LstmShape& s, bool allowed) {
  const bool fits = std::is_same_v<T, __nv_bfloat16> && s.features == cluster_lstm_features && s.row == s.features &&
                    s.batch % cluster_lstm_rows == 0;
  return allowed && fits ? cluster_lstm_capacity() : 0;
}

template <class T>
DeviceBuffer<T> buffer(std::int64_t elements) {
  return DeviceBuffer<T>(static_cast<std::size_t>(elements));
}

}  // namespace

template <class T>
Lstm<T>::Lstm(const Blas& blas, cudaStream_t stream, const LstmShape& s, bool tf32, bool clusters)
    : blas_(blas),
      shape_(s),
      capacity_(capacity_for<T>(s, clusters)),
      project_(blas, stream, project_shape<T>(s, tf32)),
      step_(blas, stream, step_shape<T>(s, tf32)),
      step_back_(blas, stream, product<T>(s.batch, s.row, 4 * s.row, tf32)),
      below_back_(blas, stream, below_back_shape<T>(s, tf32)),
      input_weight_(blas, stream, weight_shape<T>(s, s.inputs(), 4 * s.row, tf32)),
      recurrent_weight_(blas, stream, weight_shape<T>(s, 4 * s.row, s.row, tf32)),
      hidden_first_(buffer<T>(s.batch * s.row)),
      cell_first_(buffer<float>(s.batch * s.row)),
      hidden_before_(buffer<T>(s.burn_in == 0 ? s.learnt() * s.row : 0)),
      sums_delta_(buffer<T>(s.learnt() * 4 * s.row)),
      step_sums_(buffer<float>(s.batch * 4 * s.row)),
      step_delta_(buffer<float>(s.batch * s.row)),
      cell_delta_(buffer<float>(s.batch * s.row)),
      packed_(buffer<uint4>(capacity_ > 0 ? 4 * s.row * s.row / 8 : 0)) {}

template <class T>
auto Lstm<T>::memory(bool trained) const -> Memory {
  Memory memory;
  memory.inputs = buffer<T>(total() * shape_.inputs());
  memory.sums = buffer<T>(total() * 4 * shape_.row);
  memory.gates = buffer<T>(trained ? total() * 4 * shape_.row : 0);
  memory.cell = buffer<float>(trained || capacity_ == 0 ? total() * shape_.row : 0);
  return memory;
}

template <class T>
void Lstm<T>::forward(cudaStream_t stream, const LstmColumns& columns, const Pass& online, const Pass& target) {
  const int row = static_cast<int>(shape_.row);
  const int features = static_cast<int>(shape_.features);
  lstm_widen(stream, columns.hidden, features, hidden_first_.data(), row, shape_.batch);
  lstm_widen(stream, columns.cell, features, cell_first_.data(), row, shape_.batch);
  for (const Pass* pass : {&online, &target}) {
    lstm_inputs<T>(stream, {.below = pass->below,
                            .previous_action = columns.previous_action,
                            .previous_reward = columns.previous_reward,
                            .to = pass->memory->inputs.data(),
                            .samples = total(),
                            .features = static_cast<int>(shape_.below),
                            .actions = static_cast<int>(shape_.actions),
                            .width = static_cast<int>(shape_.inputs())});
    project_.run(blas_, stream, pass->memory->inputs.data(), pass->weights.input, pass->memory->sums.data());
  }
  if (in_clusters()) {
    clusters_forward(stream, online, target);
    return;
  }
  step_by_step(stream, online, true);
  step_by_step(stream, target, false);
}

template <class T>
void Lstm<T>::step_by_step(cudaStream_t stream, const Pass& pass, bool trained) {
  const std::int64_t row = shape_.row;
  for (std::int64_t t = 0; t < shape_.steps; ++t) {
    const bool first = t == 0;
    step_.run(blas_, stream, first ? hidden_first_.data() : pass.hidden + at(t - 1, row), pass.weights.recurrent,
              step_sums_.data());
    float* cell = pass.memory->cell.data();
    lstm_step<T>(stream, {.recurrent_sums = step_sums_.data(),
                          .sums = pass.memory->sums.data() + at(t, 4 * row),
                          .cell_before = first ? cell_first_.data() : cell + at(t - 1, row),
                          .hidden = pass.hidden + at(t, row),
                          .gates = trained ? pass.memory->gates.data() + at(t, 4 * row) : nullptr,
                          .cell = cell + at(t, row),
                          .elements = shape_.batch * row});
  }
}

template <class T>
void Lstm<T>::clusters_forward(cudaStream_t stream, const Pass& online, const Pass& target) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    ClusterLstmForward both[2];
    for (int i = 0; i < 2; ++i) {
      const Pass& pass = i == 0 ? online : target;
      both[i] = {.weight = pass.weights.recurrent,
                 .sums = pass.memory->sums.data(),
                 .hidden_before = hidden_first_.data(),
                 .cell_before = cell_first_.data(),
                 .hidden = pass.hidden,
                 .gates = i == 0 ? pass.memory->gates.data() : nullptr,
                 .cell = i == 0 ? pass.memory->cell.data() : nullptr,
                 .first_kept = static_cast<int>(shape_.burn_in)};
    }
    cluster_lstm_forward(stream, both, 2, static_cast<int>(shape_.steps), static_cast<int>(shape_.batch), capacity_);
  }
}

template <class T>
void Lstm<T>::step_by_step_back(cudaStream_t stream, const Pass& pass, const T* hidden_delta) {
  const std::int64_t row = shape_.row;
  const float* cell = pass.memory->cell.data();
  for (std::int64_t t = shape_.steps - 1; t >= shape_.burn_in; --t) {
    const std::int64_t learnt = t - shape_.burn_in;
    T* sums_delta = sums_delta_.data() + at(learnt, 4 * row);
    lstm_step_gradient<T>(stream, {.gates = pass.memory->gates.data() + at(t, 4 * row),
                                   .cell = cell + at(t, row),
                                   .cell_before = t == 0 ? cell_first_.data() : cell + at(t - 1, row),
                                   .hidden_delta = hidden_delta + at(learnt, row),
                                   .recurrent_delta = step_delta_.data(),
                                   .cell_delta = cell_delta_.data(),
                                   .sums_delta = sums_delta,
                                   .elements = shape_.batch * row,
                                   .row = static_cast<int>(row),
                                   .features = static_cast<int>(shape_.features),
                                   .last = t == shape_.steps - 1});
    if (t > shape_.burn_in) {
      step_back_.run(blas_, stream, sums_delta, pass.weights.recurrent, step_delta_.data());
    }
  }
}

template <class T>
void Lstm<T>::clusters_back(cudaStream_t stream, const Pass& pass, const T* hidden_delta) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    const std::int64_t first = shape_.burn_in;
    const float* cell = pass.memory->cell.data();
    cluster_lstm_pack(stream, pass.weights.recurrent, packed_.data());
    cluster_lstm_backward(stream,
                          {.weight = packed_.data(),
                           .gates = pass.memory->gates.data() + at(first, 4 * shape_.row),
                           .cell = cell + at(first, shape_.row),
                           .cell_before = first == 0 ? cell_first_.data() : cell + at(first - 1, shape_.row),
                           .hidden_delta = hidden_delta,
                           .sums_delta = sums_delta_.data()},
                          static_cast<int>(shape_.steps - first), static_cast<int>(shape_.batch), capacity_);
  }
}

template <class T>
const T* Lstm<T>::hidden_before(cudaStream_t stream, const Pass& pass) {
  if (shape_.burn_in > 0) return pass.hidden + at(shape_.burn_in - 1, shape_.row);
  const std::int64_t first = at(1, shape_.row);
  const auto copy = [&](T* to, const T* from, std::int64_t elements) {
    QANAT_CUDA(
        cudaMemcpyAsync(to, from, static_cast<std::size_t>(elements) * sizeof(T), cudaMemcpyDeviceToDevice, stream));
  };
  copy(hidden_before_.data(), hidden_first_.data(), first);
  copy(hidden_before_.data() + first, pass.hidden, shape_.learnt() * shape_.row - first);
  return hidden_before_.data();
}

template <class T>
void Lstm<T>::backward(cudaStream_t stream, const Pass& online, const Gradients& gradients) {
  if (in_clusters()) {
    clusters_back(stream, online, gradients.hidden_delta);
  } else {
    step_by_step_back(stream, online, gradients.hidden_delta);
  }
  const T* inputs = online.memory->inputs.data() + at(shape_.burn_in, shape_.inputs());
  input_weight_.run(blas_, stream, inputs, sums_delta_.data(), gradients.input);
  recurrent_weight_.run(blas_, stream, sums_delta_.data(), hidden_before(stream, online), gradients.recurrent);
  if (gradients.below_delta == nullptr) return;
  below_back_.run(blas_, stream, sums_delta_.data(), online.weights.input, gradients.below_delta);
}

template class Lstm<float>;
template class Lstm<__nv_bfloat16>;

}  // namespace qanat::nn::cuda
