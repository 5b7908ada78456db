// Fills settings structs (core/config.h) from a configuration file, strictly.
//
// Nothing is ignored and nothing guessed: an unknown key, a wrong type, a value out of range or not among the
// choices is an error, and one ConfigError carries all of them, a line each, in the order of the file:
//
//   run.yaml:12: key 'replay.capasity' is unknown; did you mean 'replay.capacity_steps'?
//   run.yaml:14: key 'replay.alpha' is 1.5, wanted 0 to 1
//
// Keys that the file does not name keep the value the struct had. A list in the file replaces the struct's list
// whole, its entries beginning from their defaults.
// Values: integers may be written 100_000 or 1e6 when that is exact; a leading zero (octal to some, decimal to
// others) is refused, quoted numbers too. Reals may be .inf and -.inf where the range allows, never .nan. Booleans
// are true and false alone. Any scalar is a good string. A section may be left empty, a value not.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "core/config.h"
#include "core/config_tree.h"

namespace qanat {

namespace detail {
// Calls `describe` once with the visitor that reads.
void read_config(const ConfigTree& tree, const std::function<void(ConfigVisitor&)>& describe);
}  // namespace detail

// Throws ConfigError; `settings` is then as it was.
template <class Struct>
void read_config(const ConfigTree& tree, Struct& settings) {
  Struct filled = settings;
  detail::read_config(tree, [&](ConfigVisitor& visitor) { filled.describe(visitor); });
  settings = std::move(filled);
}

template <class Struct>
void read_config_text(std::string_view yaml, const std::string& source, Struct& settings) {
  read_config(ConfigTree(yaml, source), settings);
}

}  // namespace qanat
