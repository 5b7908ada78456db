// The tile and the dot, for the instruction set being compiled. Included once a target by kernels.cpp only.
#if defined(QANAT_NN_CPU_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QANAT_NN_CPU_TILE_INL_H_
#undef QANAT_NN_CPU_TILE_INL_H_
#else
#define QANAT_NN_CPU_TILE_INL_H_
#endif

#include <hwy/highway.h>

#include "nn/cpu/kernels.h"

HWY_BEFORE_NAMESPACE();
namespace qanat::nn::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::CappedTag<float, max_vector>;
using Vector = hn::Vec<F32>;

// 8 x 2 accumulators need 19 registers, which AVX-512 has; with 16 registers 4 x 2 is what fits beside the operands.
// Either hides the latency of the multiply-adds and needs fewer loads than there are ports for.
#if HWY_TARGET <= HWY_AVX3
inline constexpr int tile_rows = 8;
#else
inline constexpr int tile_rows = 4;
#endif

// max(0, x) that keeps NaN.
HWY_INLINE Vector positive(F32 d, Vector x) { return hn::IfThenZeroElse(hn::Lt(x, hn::Zero(d)), x); }

template <int rows, int vectors>
HWY_INLINE void tile(const TileProblem& p, const float* HWY_RESTRICT weight, const float* HWY_RESTRICT x,
                     float* HWY_RESTRICT y, const float* bias, const float* mask) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  Vector sums[rows][vectors];
  for (int r = 0; r < rows; ++r) {
    for (int v = 0; v < vectors; ++v) sums[r][v] = bias != nullptr ? hn::Set(d, bias[r]) : hn::Zero(d);
  }
  const Reduction& reduction = p.reduction;
  const std::int64_t weight_row = p.weight_row;
  for (std::int64_t s = 0; s < reduction.segments; ++s) {
    const float* HWY_RESTRICT w = weight + reduction.weight_offset[s];
    const float* HWY_RESTRICT in = x + reduction.x_offset[s];
    for (std::int64_t n = 0; n < reduction.count; ++n) {
      Vector values[vectors];
      for (int v = 0; v < vectors; ++v) values[v] = hn::Load(d, in + v * lanes);
      for (int r = 0; r < rows; ++r) {
        const Vector scale = hn::Set(d, w[r * weight_row]);
        for (int v = 0; v < vectors; ++v) sums[r][v] = hn::MulAdd(scale, values[v], sums[r][v]);
      }
      w += reduction.weight_step;
      in += reduction.x_step;
    }
  }
  for (int r = 0; r < rows; ++r) {
    for (int v = 0; v < vectors; ++v) {
      const std::int64_t at = r * p.y_row + v * lanes;
      Vector result = sums[r][v];
      if (p.relu) result = positive(d, result);
      if (mask != nullptr) {
        result = hn::IfThenElseZero(hn::Gt(hn::Load(d, mask + at), hn::Zero(d)), result);
      }
      if (p.add) result = hn::Add(result, hn::Load(d, y + at));
      hn::Store(result, d, y + at);
    }
  }
}

template <int vectors>
HWY_NOINLINE void tile_row_block(const TileProblem& p, std::int64_t rows, const float* weight, const float* x, float* y,
                                 const float* bias, const float* mask) {
  switch (rows) {
#if HWY_TARGET <= HWY_AVX3
    case 8:
      return tile<8, vectors>(p, weight, x, y, bias, mask);
    case 7:
      return tile<7, vectors>(p, weight, x, y, bias, mask);
    case 6:
      return tile<6, vectors>(p, weight, x, y, bias, mask);
    case 5:
      return tile<5, vectors>(p, weight, x, y, bias, mask);
#endif
    case 4:
      return tile<4, vectors>(p, weight, x, y, bias, mask);
    case 3:
      return tile<3, vectors>(p, weight, x, y, bias, mask);
    case 2:
      return tile<2, vectors>(p, weight, x, y, bias, mask);
    default:
      return tile<1, vectors>(p, weight, x, y, bias, mask);
  }
}

inline void run_tiles(const TileProblem& p) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(F32()));
  for (std::int64_t point = 0; point < p.points; ++point) {
    const float* x = p.x + (p.x_point != nullptr ? p.x_point[point] : 0);
    const std::int64_t y_point = p.y_point != nullptr ? p.y_point[point] : 0;
    for (std::int64_t row = 0; row < p.rows; row += tile_rows) {
      const std::int64_t rows = p.rows - row < tile_rows ? p.rows - row : tile_rows;
      const float* weight = p.weight + row * p.weight_row;
      const float* bias = p.bias != nullptr ? p.bias + row : nullptr;
      const std::int64_t y_row = y_point + row * p.y_row;
      std::int64_t column = 0;
      while (column < p.columns) {
        float* y = p.y + y_row + column;
        const float* mask = p.mask != nullptr ? p.mask + y_row + column : nullptr;
        if (p.columns - column > lanes) {
          tile_row_block<2>(p, rows, weight, x + column, y, bias, mask);
          column += 2 * lanes;
        } else {
          tile_row_block<1>(p, rows, weight, x + column, y, bias, mask);
          column += lanes;
        }
      }
    }
  }
}

// rows x columns sums of products of lanes. 4 x 4 keeps loads at one every two multiply-adds.
template <int rows, int columns>
HWY_INLINE void dot_tile(const DotProblem& p, std::int64_t row, std::int64_t column) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  Vector sums[rows][columns];
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) sums[r][c] = hn::Zero(d);
  }
  for (std::int64_t panel = 0; panel < p.panels; ++panel) {
    const float* a_panel = p.a + panel * p.a_panel + row * p.a_row;
    const float* b_panel = p.b + panel * p.b_panel;
    for (std::int64_t point = 0; point < p.points; ++point) {
      const float* a = a_panel + p.a_point[point];
      const float* b = b_panel + p.b_point[point];
      for (std::int64_t lane = 0; lane < panel_lanes; lane += lanes) {
        Vector right[columns];
        for (int c = 0; c < columns; ++c) right[c] = hn::Load(d, b + p.b_column[column + c] + lane);
        for (int r = 0; r < rows; ++r) {
          const Vector left = hn::Load(d, a + r * p.a_row + lane);
          for (int c = 0; c < columns; ++c) sums[r][c] = hn::MulAdd(left, right[c], sums[r][c]);
        }
      }
    }
  }
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) {
      p.y[(row + r) * p.y_row + (column + c) * p.y_column] = hn::GetLane(hn::SumOfLanes(d, sums[r][c]));
    }
  }
}

template <int rows>
HWY_NOINLINE void dot_rows(const DotProblem& p, std::int64_t row) {
  constexpr int wide = HWY_TARGET <= HWY_AVX3 ? 4 : 2;
  std::int64_t column = 0;
  for (; column + wide <= p.columns; column += wide) dot_tile<rows, wide>(p, row, column);
  for (; column < p.columns; ++column) dot_tile<rows, 1>(p, row, column);
}

inline void run_dots(const DotProblem& p) {
  std::int64_t row = 0;
  for (; row + 4 <= p.rows; row += 4) dot_rows<4>(p, row);
  for (; row < p.rows; ++row) dot_rows<1>(p, row);
}

}  // namespace qanat::nn::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle
