// How numbers are written in configuration files: parsing for the reader, shortest exact text for the writer.
// Part of the configuration code; nobody else needs it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/config.h"

namespace qanat {

enum class NumberFault { none, not_a_number, leading_zero, not_exact, too_large };

template <class T>
struct ParsedNumber {
  T value{};
  NumberFault fault = NumberFault::none;
};

// Decimal integers; '_' between digits, and a fraction or exponent when the value is a whole number all the same.
[[nodiscard]] ParsedNumber<std::int64_t> parse_integer(std::string_view text);
// Decimal reals; '_' between digits, .inf, +.inf, -.inf. too_large is also said of what is too small for a double.
[[nodiscard]] ParsedNumber<double> parse_real(std::string_view text);

// The shortest text that parses to the same double, with a '.' so that other YAML readers see a real too.
[[nodiscard]] std::string write_real(double value);

// "0 to 1", "at least 1", "at most 5"; empty when everything is allowed.
[[nodiscard]] std::string range_text(const IntRange& range);
[[nodiscard]] std::string range_text(const RealRange& range);

}  // namespace qanat
