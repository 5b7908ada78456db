// The words in which a C++ environment describes itself and shows its observations. Part of "qanat/env.hpp".
//
// Plain values; Row alone borrows, from the host's buffers, for the time of one call.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "qanat/env.h"

namespace qanat::env {

enum class DType : std::uint32_t {
  u8 = QANAT_ENV_U8,
  i32 = QANAT_ENV_I32,
  i64 = QANAT_ENV_I64,
  f32 = QANAT_ENV_F32,
  f64 = QANAT_ENV_F64
};

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<std::uint8_t> : std::integral_constant<DType, DType::u8> {};
template <>
struct DTypeOf<std::int32_t> : std::integral_constant<DType, DType::i32> {};
template <>
struct DTypeOf<std::int64_t> : std::integral_constant<DType, DType::i64> {};
template <>
struct DTypeOf<float> : std::integral_constant<DType, DType::f32> {};
template <>
struct DTypeOf<double> : std::integral_constant<DType, DType::f64> {};

struct Tensor {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape = {};  // empty: a scalar
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
};

struct Action {
  std::uint32_t kind = QANAT_ENV_DISCRETE;
  std::int64_t n = 0;
  std::vector<std::int64_t> nvec;
  std::vector<float> low, high;

  static Action discrete(std::int64_t n) { return {QANAT_ENV_DISCRETE, n, {}, {}, {}}; }
  static Action multi_discrete(std::vector<std::int64_t> nvec) {
    return {QANAT_ENV_MULTI_DISCRETE, 0, std::move(nvec), {}, {}};
  }
  static Action box(std::vector<float> low, std::vector<float> high) {
    return {QANAT_ENV_BOX, 0, {}, std::move(low), std::move(high)};
  }
  // Numbers in one action, and entries in its mask.
  [[nodiscard]] std::size_t dims() const { return kind == QANAT_ENV_BOX ? low.size() : nvec.size(); }
  [[nodiscard]] std::size_t choices() const {
    if (kind == QANAT_ENV_DISCRETE) return static_cast<std::size_t>(n);
    std::int64_t sum = 0;
    for (const std::int64_t count : nvec) sum += count;
    return static_cast<std::size_t>(sum);
  }
};

struct Spec {
  std::vector<Tensor> observations;
  Action action;
  std::int64_t max_episode_steps = 0;  // the environment's own limit; 0: none
  std::vector<std::string> metrics = {};
  bool action_mask = false;
};

struct Outcome {
  float reward = 0;
  bool terminated = false;
  bool truncated = false;
};

struct Image {
  std::int32_t height = 0, width = 0;
  std::vector<std::uint8_t> rgb;  // [height, width, 3]
};

// One slot's part of the observation buffers: borrowed, for the time of one observe().
class Row {
 public:
  struct Column {
    DType dtype;
    std::size_t elements;
  };

  Row(void* const* bases, const Column* columns, std::size_t slot) : bases_(bases), columns_(columns), slot_(slot) {}

  // The elements of observation `column`. T must be its dtype, column one of the spec's.
  template <class T>
  [[nodiscard]] std::span<T> at(std::size_t column = 0) const {
    assert(columns_[column].dtype == DTypeOf<T>::value);
    const std::size_t elements = columns_[column].elements;
    return {static_cast<T*>(bases_[column]) + slot_ * elements, elements};
  }

 private:
  void* const* bases_;
  const Column* columns_;
  std::size_t slot_;
};

}  // namespace qanat::env
