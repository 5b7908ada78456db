#include "envs/picture.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "core/error.h"

namespace qanat::envs {
namespace {

using Colour = std::array<double, 3>;
constexpr std::array<Colour, 8> colours = {{{90, 200, 250},
                                            {255, 95, 85},
                                            {120, 220, 120},
                                            {250, 200, 80},
                                            {200, 130, 250},
                                            {250, 150, 200},
                                            {160, 160, 160},
                                            {240, 240, 240}}};
constexpr Colour grey = {255, 255, 255};

bool is_picture(const ObservationSpec& column) {
  const auto& shape = column.tensor.shape;
  const bool planes = shape.size() == 3 && shape[0] <= static_cast<std::int64_t>(colours.size());
  return (shape.size() == 2 || planes) && std::isfinite(column.low) && std::isfinite(column.high) &&
         column.low < column.high;
}

Picture picture_of_planes(const ObservationSpec& column, const std::byte* row) {
  const auto& shape = column.tensor.shape;
  const std::size_t planes = shape.size() == 3 ? static_cast<std::size_t>(shape[0]) : 1;
  Picture out{static_cast<int>(shape[shape.size() - 2]), static_cast<int>(shape.back()), {}};
  const std::size_t cells = static_cast<std::size_t>(out.height) * static_cast<std::size_t>(out.width);
  out.rgb.resize(3 * cells);
  for (std::size_t cell = 0; cell < cells; ++cell) {
    for (std::size_t plane = 0; plane < planes; ++plane) {
      const double value = value_at(column.tensor.dtype, row, plane * cells + cell);
      const double share = std::clamp((value - column.low) / (column.high - column.low), 0.0, 1.0);
      const Colour& colour = planes == 1 ? grey : colours[plane];
      for (std::size_t c = 0; c < 3; ++c) {
        auto& channel = out.rgb[3 * cell + c];
        channel = std::max(channel, static_cast<std::uint8_t>(std::lround(share * colour[c])));
      }
    }
  }
  return out;
}

const std::byte* row_of(const ObservationSpec& column, std::span<const std::byte> all, std::size_t slot) {
  return all.subspan(slot * column.tensor.bytes()).data();
}

}  // namespace

std::string picture_source(const EnvSpec& spec) {
  if (spec.can_render) return "render()";
  const auto& column = spec.observations.front();
  if (is_picture(column)) return text("observation ", column.tensor.describe());
  throw ConfigError(text("environment ", spec.id, " cannot be shown: it has no render(), and its observation ",
                         column.tensor.describe(), " with bounds ", column.low, " to ", column.high,
                         " is no picture, wanted [H, W] or up to ", colours.size(),
                         " planes [planes, H, W] with finite bounds"));
}

Picture picture_of(const VectorEnv& env, std::size_t slot) {
  const auto& spec = env.spec();
  static_cast<void>(picture_source(spec));
  if (!spec.can_render) {
    return picture_of_planes(spec.observations[0], row_of(spec.observations[0], env.observation(0), slot));
  }
  Picture out;
  out.rgb = env.render(slot, out.height, out.width);
  return out;
}

std::optional<Picture> final_picture_of(const VectorEnv& env, std::size_t slot) {
  const auto& spec = env.spec();
  static_cast<void>(picture_source(spec));
  if (spec.can_render) return std::nullopt;
  return picture_of_planes(spec.observations[0], row_of(spec.observations[0], env.final_observation(0), slot));
}

}  // namespace qanat::envs
