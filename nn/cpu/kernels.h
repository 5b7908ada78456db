// The fast backend's vector kernels, compiled for several instruction sets and chosen at run time.
//
// Activations are panels of 32 samples: [panel][feature][32] f32, samples in the vector lanes (outputs, where
// samples are few). So every layer is the same tile, several outputs times a few vectors of samples, each product one
// broadcast weight; bias, relu and relu masks are applied where the tile is stored. Sums run in one fixed order,
// whatever the batch: a sample's result is the same in any company, bit for bit on one instruction set.
//
// Thread safety: pure functions over caller-owned memory. Pointers are aligned to 64 bytes where a kernel says so.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nn/optimizer.h"

namespace qanat::nn::cpu {

inline constexpr std::int64_t panel_lanes = 32;
// Vector lengths never exceed this many floats; row lengths are padded to it.
inline constexpr std::int64_t max_vector = 16;

// Whether outputs are enough to be the lanes of vectors, in a linear layer's weight gradient (narrower ones sum over
// lanes of samples) and where samples are few.
[[nodiscard]] constexpr bool wide_row(std::int64_t outputs) { return outputs >= 2 * max_vector; }

// Floats between two rows of a linear layer's weights, and of outputs in the lanes: wide rows are padded to whole
// vectors, and off multiples of 1 KB, where a column's elements would meet in few cache sets (loads and stores 4 KB
// apart also alias).
[[nodiscard]] constexpr std::int64_t padded_row(std::int64_t outputs) {
  if (!wide_row(outputs)) return outputs;
  const std::int64_t whole = (outputs + max_vector - 1) / max_vector * max_vector;
  return whole % 256 == 0 ? whole + max_vector : whole;
}

// Which products make up one output: for each segment s and each n < count,
//   weight[segments.weight[s] + n * weight_step]  times  x[segments.x[s] + n * x_step].
struct Reduction {
  const std::int64_t* weight_offset = nullptr;  // [segments]
  const std::int64_t* x_offset = nullptr;       // [segments]
  std::int64_t segments = 0;
  std::int64_t count = 0;
  std::int64_t weight_step = 0;
  std::int64_t x_step = 0;
};

// y[row][column] = epilogue(sum of the reduction), for each row and each column, at each of `points` places. The rows
// are scalars of `weight`, weight_row apart; the columns are lanes of x.
struct TileProblem {
  const float* weight = nullptr;
  const float* x = nullptr;  // aligned
  float* y = nullptr;        // aligned
  Reduction reduction = {};
  std::int64_t rows = 0;
  std::int64_t columns = 0;            // rounded up to whole vectors: x and y must be padded so
  std::int64_t x_group = panel_lanes;  // between 32 columns of x and the next 32
  std::int64_t y_group = panel_lanes;  // the same of y and the mask
  std::int64_t weight_row = 0;
  std::int64_t y_row = 0;
  std::int64_t points = 1;
  const std::int64_t* x_point = nullptr;  // [points] added to x; null: all 0
  const std::int64_t* y_point = nullptr;  // [points] added to y and mask; null: all 0

  const float* bias = nullptr;  // [rows], or none
  const float* mask = nullptr;  // laid out as y: the result is 0 where the mask is not above 0; or none
  bool relu = false;
  bool add = false;     // y += rather than y =
  bool resume = false;  // sums go on from y rather than from the bias: part of a longer sum, in the same order
};
void run_tiles(const TileProblem& problem);

// y[row * y_row + column * y_column] = sum over panels, points and lanes of a * b, where for each panel
//   a = a_data + panel * a_panel + row * a_row + a_point[point],  b = b_data + panel * b_panel + b_column[column] +
//   b_point[point]  point to 32 aligned lanes.
struct DotProblem {
  const float* a = nullptr;
  const float* b = nullptr;
  float* y = nullptr;
  std::int64_t rows = 0, columns = 0;
  std::int64_t a_row = 0;
  const std::int64_t* b_column = nullptr;  // [columns]
  const std::int64_t* a_point = nullptr;   // [points]
  const std::int64_t* b_point = nullptr;   // [points]
  std::int64_t points = 1;
  std::int64_t panels = 1, a_panel = 0, b_panel = 0;
  std::int64_t y_row = 0, y_column = 1;
};
void run_dots(const DotProblem& problem);

// sums[f] = sum over panels, `pixels` consecutive features and lanes of x: gradients of biases.
void sum_lanes(const float* x, std::int64_t channels, std::int64_t pixels, std::int64_t panels, std::int64_t panel_step,
               float* sums);

// out[lane * out_row + f] = in[f * 32 + lane] for f < features.
void transpose_panel(const float* in, std::int64_t features, float* out, std::int64_t out_row);

// One panel of samples from rows: out[f * 32 + lane] = scale * rows[lane][f]. Lanes >= lanes_used become 0, in
// vectors that no sample uses they may stay as they are.
void gather_u8(const std::uint8_t* const* rows, std::int64_t lanes_used, std::int64_t features, float scale,
               float* out);
void gather_f32(const std::byte* const* rows, std::int64_t lanes_used, std::int64_t features, float scale, float* out);

// One panel. x, y: [features][32].
void relu_panel(const float* x, std::int64_t features, float* y);
struct LayerNormPanel {
  const float* x = nullptr;
  std::int64_t features = 0;
  const float* gain = nullptr;
  const float* bias = nullptr;
};
void layer_norm_panel(const LayerNormPanel& in, bool relu, float* y);
// Writes dx when it is not null (masked by x > 0 when `mask`, added when `add`), and adds to the gains' and biases'
// gradients.
void layer_norm_gradient_panel(const LayerNormPanel& in, const float* dy, float* dx, bool mask, bool add,
                               float* gain_gradient, float* bias_gradient);

// Sum of squares of `count` values, a multiple of 16, aligned.
double sum_of_squares(const float* x, std::size_t count);

// One optimiser step and target update over flat blocks of `count` values, a multiple of 16, aligned.
struct OptimizerBlocks {
  float* parameter = nullptr;
  const float* gradient = nullptr;
  float* mean = nullptr;
  float* square = nullptr;
  float* target = nullptr;
  std::size_t count = 0;
};
void adam_blocks(const OptimizerBlocks& blocks, const StepScalars<float>& scalars);
void rmsprop_blocks(const OptimizerBlocks& blocks, bool centered, const StepScalars<float>& scalars);

}  // namespace qanat::nn::cpu
