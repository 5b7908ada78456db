#include "nn/cuda/nature/places.h"

#include <cassert>

#include "core/error.h"

namespace qanat::nn::nature {
namespace {

constexpr std::int64_t most_actions = most_rows - 1;

struct Expected {
  LayerKind kind;
  std::int64_t out;
  std::int64_t kernel;
  std::int64_t stride;
};

// Parameters come tensor by tensor in canonical order; each call appends one tensor's places.
class Places {
 public:
  void run(int first, int count) {
    for (int i = 0; i < count; ++i) add(first + i);
  }
  // Columns of the linear layer: `count` of them from `first` on.
  void linear(const Shape& shape, int first, int count) {
    for (int feature = 0; feature < features; ++feature) {
      for (int j = 0; j < count; ++j) add(dense + feature_position(feature) * shape.hidden() + first + j);
    }
    run(shape.hidden_bias() + first, count);
  }
  // Head rows, which the canonical layout stores as columns.
  void head(const Shape& shape, int first, int count) {
    for (int j = 0; j < head_width; ++j) {
      for (int row = first; row < first + count; ++row) add(shape.head_weight() + row * head_width + j);
    }
    run(shape.head_bias() + first, count);
  }
  std::vector<std::uint32_t> take() { return std::move(places_); }

 private:
  void add(int place) { places_.push_back(static_cast<std::uint32_t>(place)); }
  std::vector<std::uint32_t> places_;
};

}  // namespace

std::string foreign_part(const NetworkSpec& spec) {
  const std::vector<std::int64_t> stacked = {stack, frame_side, frame_side};
  if (spec.input.dtype != DType::u8 || spec.stack != stack || spec.stacked_shape() != stacked) {
    return text("rows ", spec.input.describe(), " in stacks of ", spec.stack, ", wanted u8 [84, 84] in stacks of 4");
  }
  std::vector<Expected> wanted = {{LayerKind::conv2d, 32, 8, 4}, {LayerKind::relu, 0, 0, 1},
                                  {LayerKind::conv2d, 64, 4, 2}, {LayerKind::relu, 0, 0, 1},
                                  {LayerKind::conv2d, 64, 3, 1}, {LayerKind::relu, 0, 0, 1}};
  if (!spec.dueling) {
    wanted.push_back({LayerKind::linear, head_width, 0, 1});
    wanted.push_back({LayerKind::relu, 0, 0, 1});
  }
  bool same = spec.layers.size() == wanted.size();
  for (std::size_t i = 0; same && i < wanted.size(); ++i) {
    const Layer& layer = spec.layers[i];
    same = layer.kind == wanted[i].kind && (wanted[i].out == 0 || layer.out[0] == wanted[i].out) &&
           (layer.kind != LayerKind::conv2d || (layer.kernel == wanted[i].kernel && layer.stride == wanted[i].stride));
  }
  if (!same) return "a trunk that is not the preset nature's";
  if (spec.dueling && spec.dueling_hidden != head_width) {
    return text("dueling_hidden ", spec.dueling_hidden, ", wanted ", head_width);
  }
  if (spec.actions > most_actions) return text(spec.actions, " actions, wanted at most ", most_actions);
  return "";
}

Shape shape_of(const NetworkSpec& spec) { return {.actions = static_cast<int>(spec.actions), .dueling = spec.dueling}; }

std::vector<std::uint32_t> private_places(const NetworkSpec& spec) {
  const Shape shape = shape_of(spec);
  Places places;
  places.run(0, dense);  // the convolutions stand as in the canonical layout
  if (shape.dueling) {
    places.linear(shape, 0, head_width);
    places.linear(shape, head_width, head_width);
    places.head(shape, 0, 1);
    places.head(shape, 1, shape.actions);
  } else {
    places.linear(shape, 0, head_width);
    places.head(shape, 0, shape.actions);
  }
  auto all = places.take();
  assert(all.size() == parameter_count(spec));
  return all;
}

}  // namespace qanat::nn::nature
