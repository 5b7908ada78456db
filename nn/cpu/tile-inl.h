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

// Accumulators of a tile. AVX-512 has 32 registers: 6 x 4 takes the fewest instructions for a multiply-add, 8 x 2 and
// 8 x 1 serve where there are fewer columns. With 16 registers 4 x 2 is what fits beside the operands.
#if HWY_TARGET <= HWY_AVX3
inline constexpr int widest_tile = 4;
constexpr std::int64_t tile_rows(int vectors) { return vectors == 4 ? 6 : 8; }
#else
inline constexpr int widest_tile = 2;
constexpr std::int64_t tile_rows(int) { return 4; }
#endif
// Rows that are taken through all columns before the next ones are touched: whole tiles of either kind.
inline constexpr std::int64_t row_block = 24;

// max(0, x) that keeps NaN.
HWY_INLINE Vector positive(F32 d, Vector x) { return hn::IfThenZeroElse(hn::Lt(x, hn::Zero(d)), x); }

template <int rows, int vectors>
HWY_INLINE void tile(const TileProblem& p, const float* HWY_RESTRICT weight, const float* HWY_RESTRICT x,
                     float* HWY_RESTRICT y, const float* bias, const float* mask) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto at_vector = [&](int v, std::int64_t group) {
    return v * lanes / panel_lanes * group + v * lanes % panel_lanes;
  };
  Vector sums[rows][vectors];
  for (int r = 0; r < rows; ++r) {
    for (int v = 0; v < vectors; ++v) {
      if (p.resume) {
        sums[r][v] = hn::Load(d, y + r * p.y_row + at_vector(v, p.y_group));
      } else {
        sums[r][v] = bias != nullptr ? hn::Set(d, bias[r]) : hn::Zero(d);
      }
    }
  }
  const Reduction& reduction = p.reduction;
  const std::int64_t weight_row = p.weight_row;
  const std::int64_t x_group = p.x_group;
  for (std::int64_t s = 0; s < reduction.segments; ++s) {
    const float* HWY_RESTRICT w = weight + reduction.weight_offset[s];
    const float* HWY_RESTRICT in = x + reduction.x_offset[s];
    for (std::int64_t n = 0; n < reduction.count; ++n) {
      Vector values[vectors];
      for (int v = 0; v < vectors; ++v) values[v] = hn::Load(d, in + at_vector(v, x_group));
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
      const std::int64_t at = r * p.y_row + at_vector(v, p.y_group);
      Vector result = sums[r][v];
      if (p.relu) result = positive(d, result);
      if (mask != nullptr) result = hn::IfThenElseZero(hn::Gt(hn::Load(d, mask + at), hn::Zero(d)), result);
      if (p.add) result = hn::Add(result, hn::Load(d, y + at));
      hn::Store(result, d, y + at);
    }
  }
}

template <int vectors>
HWY_NOINLINE void tile_of(std::int64_t rows, const TileProblem& p, const float* weight, const float* x, float* y,
                          const float* bias, const float* mask) {
  switch (rows) {
    case 8:
      if constexpr (tile_rows(vectors) >= 8) return tile<8, vectors>(p, weight, x, y, bias, mask);
      [[fallthrough]];
    case 7:
      if constexpr (tile_rows(vectors) >= 7) return tile<7, vectors>(p, weight, x, y, bias, mask);
      [[fallthrough]];
    case 6:
      if constexpr (tile_rows(vectors) >= 6) return tile<6, vectors>(p, weight, x, y, bias, mask);
      [[fallthrough]];
    case 5:
      if constexpr (tile_rows(vectors) >= 5) return tile<5, vectors>(p, weight, x, y, bias, mask);
      [[fallthrough]];
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

// Rows [first, last) of one point and one strip of columns, in tiles of nearly equal height.
template <int vectors>
HWY_INLINE void tile_strip(const TileProblem& p, std::int64_t point, std::int64_t first, std::int64_t last,
                           std::int64_t column) {
  const std::int64_t group = column / panel_lanes;
  const std::int64_t lane = column % panel_lanes;
  const float* x = p.x + (p.x_point != nullptr ? p.x_point[point] : 0) + group * p.x_group + lane;
  const std::int64_t y = (p.y_point != nullptr ? p.y_point[point] : 0) + group * p.y_group + lane;
  std::int64_t tiles = (last - first + tile_rows(vectors) - 1) / tile_rows(vectors);
  for (std::int64_t row = first; row < last; --tiles) {
    const std::int64_t rows = (last - row + tiles - 1) / tiles;
    const std::int64_t at = y + row * p.y_row;
    tile_of<vectors>(rows, p, p.weight + row * p.weight_row, x, p.y + at, p.bias != nullptr ? p.bias + row : nullptr,
                     p.mask != nullptr ? p.mask + at : nullptr);
    row += rows;
  }
}

inline void run_tiles(const TileProblem& p) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(F32()));
  for (std::int64_t point = 0; point < p.points; ++point) {
    for (std::int64_t first = 0; first < p.rows; first += row_block) {
      const std::int64_t last = p.rows - first < row_block ? p.rows : first + row_block;
      for (std::int64_t column = 0; column < p.columns;) {
        const std::int64_t vectors = (p.columns - column + lanes - 1) / lanes;
        if (widest_tile >= 4 && vectors >= 4) {
          tile_strip<widest_tile>(p, point, first, last, column);
          column += widest_tile * lanes;
        } else if (vectors >= 2) {
          tile_strip<2>(p, point, first, last, column);
          column += 2 * lanes;
        } else {
          tile_strip<1>(p, point, first, last, column);
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
