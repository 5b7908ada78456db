// A board of coloured cells as a picture, for the grid games.
#pragma once

#include <array>
#include <cstdint>

#include "qanat/env.hpp"

namespace qanat::envs {

using Colour = std::array<std::uint8_t, 3>;

// colour_at(row, column) gives a cell's colour; each cell becomes a square of `cell` pixels.
template <class ColourAt>
[[nodiscard]] env::Image picture_of_cells(int rows, int columns, int cell, ColourAt&& colour_at) {
  env::Image image{rows * cell, columns * cell, {}};
  image.rgb.reserve(3 * static_cast<std::size_t>(image.height) * static_cast<std::size_t>(image.width));
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) {
      const Colour colour = colour_at(y / cell, x / cell);
      image.rgb.insert(image.rgb.end(), colour.begin(), colour.end());
    }
  }
  return image;
}

}  // namespace qanat::envs
