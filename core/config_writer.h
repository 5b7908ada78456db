// What can be made of a settings struct's description (core/config.h): its complete YAML, a JSON Schema, and a
// reference page. All are pure functions of the values given; a settings struct by its defaults is `Struct{}`.
#pragma once

#include <functional>
#include <string>

#include "core/config.h"

namespace qanat {

namespace detail {
using Describe = std::function<void(ConfigVisitor&)>;  // may be called several times
std::string write_config(const Describe& describe);
std::string config_schema(const Describe& describe, const std::string& title);
std::string config_reference(const Describe& describe, const std::string& title);

template <class Struct>
Describe description_of(Struct& settings) {
  return [&settings](ConfigVisitor& visitor) { settings.describe(visitor); };
}
}  // namespace detail

// YAML naming every key, which read_config reads back to an equal struct: reals are the shortest text that gives
// the same bits. Throws ConfigError, naming the key, for what YAML cannot carry: NaN, or text that is not UTF-8.
template <class Struct>
[[nodiscard]] std::string write_config(Struct settings) {
  return detail::write_config(detail::description_of(settings));
}

// A JSON Schema (draft 2020-12) with types, defaults, ranges, choices and help, for editors. It is narrower than
// the reader where YAML is: 100_000 is an integer to us, text to a YAML 1.2 editor; .inf is no JSON number.
template <class Struct>
[[nodiscard]] std::string config_schema(Struct settings, const std::string& title) {
  return detail::config_schema(detail::description_of(settings), title);
}

// A Markdown page under the heading `title`: a table a section with key, type, default, range and help.
template <class Struct>
[[nodiscard]] std::string config_reference(Struct settings, const std::string& title) {
  return detail::config_reference(detail::description_of(settings), title);
}

}  // namespace qanat
