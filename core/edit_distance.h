// How far a mistyped word is from what may have been meant. Pure functions.
#pragma once

#include <cstddef>
#include <string_view>

namespace qanat {

// Edit distance (insert, delete, replace, swap neighbours: Damerau 1964, optimal string alignment) of `word` to
// `whole`, and to the prefix of `whole` it fits best: people stop typing early.
struct EditDistance {
  std::size_t whole = 0;
  std::size_t prefix = 0;
};
[[nodiscard]] EditDistance edit_distance(std::string_view word, std::string_view whole);

}  // namespace qanat
