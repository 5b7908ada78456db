// An lstm's passes over a batch of sequences, forward for two networks and back for one: a product for all inputs, the
// recurrence, products for all gradients. The recurrence runs in clusters that hold the weights in registers where the
// device, the type (bf16) and the shape (512 features, batches of multiples of 8) allow, else as one product and one
// elementwise kernel a step.
//
// Thread safety: one thread at a time. All but the constructor only enqueues, and can be captured.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "nn/cuda/device.h"
#include "nn/cuda/gemm.h"
#include "nn/cuda/layout.h"

namespace qanat::nn::cuda {

struct LstmShape {
  std::int64_t batch = 0;    // B
  std::int64_t steps = 0;    // T
  std::int64_t burn_in = 0;  // steps without a gradient
  std::int64_t below = 0;    // features of the layer below, padded
  std::int64_t actions = 0;
  std::int64_t features = 0;  // H
  std::int64_t row = 0;       // H padded: of all states and gradients of states

  // Rows of the input weight: the layer below, the last action, the last reward, the two biases; padded.
  [[nodiscard]] std::int64_t inputs() const { return lstm_input_rows(below, actions); }
  [[nodiscard]] std::int64_t learnt() const { return (steps - burn_in) * batch; }
};

// A sequence batch's columns that the lstm reads, f32 and i32.
struct LstmColumns {
  const std::int32_t* previous_action = nullptr;  // [T, B]
  const float* previous_reward = nullptr;         // [T, B]
  const float* hidden = nullptr;                  // [B, H]
  const float* cell = nullptr;                    // [B, H]
};

// One network's weights in T. Rows of gates are feature * 4 + gate, padded features' rows are zero.
template <class T>
struct LstmWeights {
  const T* input = nullptr;      // [inputs, 4 row]
  const T* recurrent = nullptr;  // [4 row, row]
};

template <class T>
class Lstm {
 public:
  // What one network's forward pass leaves for the backward pass, and its workspace.
  struct Memory {
    DeviceBuffer<T> inputs;    // [T * B, inputs]
    DeviceBuffer<T> sums;      // [T * B, 4 row]
    DeviceBuffer<T> gates;     // [T * B, 4 row]
    DeviceBuffer<float> cell;  // [T * B, row]
  };

  // `tf32` as in GemmShape. `clusters`: whether the faster recurrence may be used.
  Lstm(const Blas& blas, cudaStream_t stream, const LstmShape& shape, bool tf32, bool clusters);

  [[nodiscard]] Memory memory(bool trained) const;
  [[nodiscard]] bool in_clusters() const { return capacity_ > 0; }

  struct Pass {
    LstmWeights<T> weights;
    Memory* memory = nullptr;
    const T* below = nullptr;  // [T * B, below]
    T* hidden = nullptr;       // [T * B, row]
  };
  // The first is the network that is trained.
  void forward(cudaStream_t stream, const LstmColumns& columns, const Pass& online, const Pass& target);

  struct Gradients {
    const T* hidden_delta = nullptr;  // [learnt, row] from above
    T* below_delta = nullptr;         // [learnt, below], before any mask; null: not wanted
    float* input = nullptr;           // [inputs, 4 row]
    float* recurrent = nullptr;       // [4 row, row]
  };
  void backward(cudaStream_t stream, const Pass& online, const Gradients& gradients);

 private:
  [[nodiscard]] std::int64_t total() const { return shape_.steps * shape_.batch; }
  // Elements to the first sample of step t in something of `width` elements a sample.
  [[nodiscard]] std::int64_t at(std::int64_t t, std::int64_t width) const { return t * shape_.batch * width; }
  void step_by_step(cudaStream_t stream, const Pass& pass, bool trained);
  void step_by_step_back(cudaStream_t stream, const Pass& pass, const T* hidden_delta);
  void clusters_forward(cudaStream_t stream, const Pass& online, const Pass& target);
  void clusters_back(cudaStream_t stream, const Pass& pass, const T* hidden_delta);
  // h before each step that is learnt from, [learnt, row].
  const T* hidden_before(cudaStream_t stream, const Pass& pass);

  const Blas& blas_;
  LstmShape shape_;
  int capacity_ = 0;  // clusters at once; 0: step by step
  Gemm project_, step_, step_back_, below_back_, input_weight_, recurrent_weight_;
  DeviceBuffer<T> hidden_first_;                 // [B, row] the stored state
  DeviceBuffer<float> cell_first_;               // [B, row]
  DeviceBuffer<T> hidden_before_;                // [learnt, row] without burn-in
  DeviceBuffer<T> sums_delta_;                   // [learnt, 4 row]
  DeviceBuffer<float> step_sums_;                // [B, 4 row]
  DeviceBuffer<float> step_delta_, cell_delta_;  // [B, row]
  DeviceBuffer<uint4> packed_;                   // the recurrent weight for the clusters' backward pass
};

}  // namespace qanat::nn::cuda
