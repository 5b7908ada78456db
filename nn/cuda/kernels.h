// Launches of the general path's own kernels: what cuDNN and cuBLASLt do not do. Each is one launch on the given
// stream, deterministic, and reads nothing on the host. T is the type of activations: __nv_bfloat16 or float.
//
// Shapes are in the layouts of nn/cuda/layout.h; all pointers are device memory.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "nn/cuda/layout.h"
#include "nn/cuda/staging.h"
#include "nn/optimizer.h"
#include "nn/td.h"

namespace qanat::nn::cuda {

// --- kernels_load.cu: rows to activations

struct LoadRows {
  const std::byte* const* rows = nullptr;  // address of the address of the rows [rows, row_elements]
  const std::uint32_t* index = nullptr;    // [samples, stack]
  std::int64_t samples = 0;
  std::int64_t stack = 1;
  std::int64_t row_elements = 0;
  bool bytes = true;  // u8, else f32
  float scale = 1;
  InputLayout input;
  std::int64_t width = 0;       // of one sample of `to`
  std::int32_t* bad = nullptr;  // [samples]: set to 1 where an f32 row holds what is not finite
};
// Gathers, stacks and scales: to [samples][width]. The padding is written too, as zeros.
template <class T>
void load_rows(cudaStream_t stream, const LoadRows& load, T* to);

// --- kernels_layers.cu

// out := max(0, in), NaN stays. [count]
template <class T>
void relu_forward(cudaStream_t stream, const T* in, T* out, std::int64_t count);
// to [rows, columns] := relu(to + bias) or to + bias, for convolutions whose library call has no epilogue.
template <class T>
void add_bias(cudaStream_t stream, T* to, const T* bias, std::int64_t rows, std::int64_t columns, bool relu);

struct MaskShape {
  std::int64_t rows = 0;                      // pixels of all samples
  std::int64_t columns = 0;                   // channels, padded
  std::int64_t value_row = 0, delta_row = 0;  // elements from one row to the next
};
// delta := 0 where value is not above 0, and sums [columns] := sums over the rows of what is left, which is the
// gradient of the bias of the layer that made the values. sums null: only the mask; value null: only the sums. Scratch:
// sums_scratch() floats, and one counter that is 0 before and after.
[[nodiscard]] std::int64_t sums_scratch(std::int64_t columns);
template <class T>
void mask_and_sum(cudaStream_t stream, const MaskShape& shape, const T* value, T* delta, float* sums, float* scratch,
                  unsigned* counter);

struct NormShape {
  ViewLayout in;  // pixels, channels and padding of what is normalised; out is laid out alike
  std::int64_t in_row = 0, out_row = 0;
  std::int64_t samples = 0;
};
template <class T>
void layer_norm_forward(cudaStream_t stream, const NormShape& shape, const T* in, const float* gain, const float* bias,
                        T* out, bool relu);
// in_delta null: only the parameters' gradients. `accumulate`: adds to in_delta. `relu_in`: masked by in > 0.
// moments [samples, 2]: scratch. Gradients are written over the padding too.
template <class T>
void layer_norm_backward(cudaStream_t stream, const NormShape& shape, const T* in, const float* gain,
                         const T* out_delta, T* in_delta, std::int64_t in_delta_row, bool accumulate, bool relu_in,
                         float* moments, float* gain_gradient, float* bias_gradient);

struct DuelingShape {
  std::int64_t samples = 0, actions = 0;
  std::int64_t in_row = 0, q_row = 0;
  std::int64_t value = 0, advantage = 0;  // offsets in a row of the streams
};
// q := value + advantage - mean(advantage), from f32 streams [samples, in_row] to f32 q [samples, q_row].
void dueling_forward(cudaStream_t stream, const DuelingShape& shape, const float* streams, float* q);
template <class T>
void dueling_backward(cudaStream_t stream, const DuelingShape& shape, const float* q_delta, T* streams_delta);

// --- kernels_update.cu

// What the optimiser remembers between updates beside the moments.
struct OptimizerClock {
  std::int64_t steps = 0;         // finished updates
  std::int32_t sync_pending = 0;  // a sync asked for with an update that was skipped
  std::int32_t finite = 1;        // of the running update
  StepScalars<float> scalars = {};
};

struct TdInputs {
  DeviceBatch batch;
  std::int64_t actions = 0;
  std::int64_t q_row = 0;
  const float* q = nullptr;         // [B, q_row], online network, states
  const float* choosing = nullptr;  // [B, q_row], picks a*
  const float* target = nullptr;    // [B, q_row], values it
  std::int64_t delta_row = 0;
  std::int32_t* bad_state = nullptr;  // [B], see LoadRows; 0 afterwards
  std::int32_t* bad_next = nullptr;   // [B]
  TdOptions options;
  float* td_abs = nullptr;          // [B]
  UpdateReport* report = nullptr;   // loss and mean_q
  OptimizerClock* clock = nullptr;  // scalars of the next step, as far as they are known
  OptimizerRule rule;
  double* partial = nullptr;    // [td_blocks(B), 2]
  unsigned* counter = nullptr;  // 0 before and after
};
[[nodiscard]] std::int64_t td_blocks(std::int64_t batch);
// Target, loss, |td|, and delta [B, delta_row] := d loss / d q, 0 for actions not taken.
template <class D>
void td_update(cudaStream_t stream, const TdInputs& inputs, D* delta);

// Gradients that a library could write in T only; the norm's pass widens them.
struct NarrowSegments {
  static constexpr int most = 32;
  int count = 0;
  std::int64_t begin[most] = {}, end[most] = {};  // elements of the block, multiples of 4
};

struct OptimizerBlocks {
  std::int64_t count = 0;  // elements, a multiple of 4
  float* gradient = nullptr;
  float* parameter = nullptr;
  float* mean = nullptr;
  float* square = nullptr;
  float* target = nullptr;
  OptimizerClock* clock = nullptr;
  double* partial = nullptr;    // [optimizer_blocks]
  unsigned* counter = nullptr;  // 0 before and after
};
constexpr int optimizer_blocks = 264;

// Widens, sums squares, and with the last block decides: finite or not, the step's scalars, the clock.
template <class T>
void gradient_norm(cudaStream_t stream, const OptimizerBlocks& blocks, const NarrowSegments& narrow,
                   const T* narrow_gradient, const BatchHead* head, const OptimizerRule& rule, UpdateReport* report);
// One pass over all blocks. `copy` and `target_copy`: what products read; the same as parameter and target when T is
// float.
template <class T>
void optimizer_step(cudaStream_t stream, const OptimizerBlocks& blocks, const OptimizerRule& rule, T* copy,
                    T* target_copy);

// Canonical order and back: element i of canonical is block[elements[i]].
void gather_elements(cudaStream_t stream, const float* block, const std::uint32_t* elements, std::int64_t count,
                     float* canonical);
// copy gets the same, rounded; null when T is float and block is what products read.
template <class T>
void scatter_elements(cudaStream_t stream, const float* canonical, const std::uint32_t* elements, std::int64_t count,
                      float* block, T* copy);

}  // namespace qanat::nn::cuda
