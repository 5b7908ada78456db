#include "core/config_scalar.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

namespace qanat {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// A decimal literal, taken apart: (-1)^negative * digits * 10^exponent.
struct Decimal {
  bool negative = false;
  std::string whole;     // digits before the point
  std::string fraction;  // digits behind it
  std::string exponent;  // with its sign, or empty
};

// Moves digits and single inner underscores from the front of `text`; false for a stray underscore.
bool take_digits(std::string_view& text, std::string& digits) {
  while (!text.empty() && (is_digit(text[0]) || text[0] == '_')) {
    if (text[0] == '_') {
      if (digits.empty() || text.size() < 2 || !is_digit(text[1])) return false;
    } else {
      digits += text[0];
    }
    text.remove_prefix(1);
  }
  return true;
}

std::optional<Decimal> take_apart(std::string_view text) {
  Decimal out;
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
    out.negative = text[0] == '-';
    text.remove_prefix(1);
  }
  if (!take_digits(text, out.whole)) return std::nullopt;
  if (!text.empty() && text[0] == '.') {
    text.remove_prefix(1);
    if (!take_digits(text, out.fraction)) return std::nullopt;
  }
  if (out.whole.empty() && out.fraction.empty()) return std::nullopt;
  if (!text.empty() && (text[0] == 'e' || text[0] == 'E')) {
    text.remove_prefix(1);
    if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
      if (text[0] == '-') out.exponent.push_back('-');
      text.remove_prefix(1);
    }
    const std::size_t sign = out.exponent.size();
    std::string digits;
    if (!take_digits(text, digits)) return std::nullopt;
    out.exponent += digits;
    if (out.exponent.size() == sign) return std::nullopt;
  }
  if (!text.empty()) return std::nullopt;
  return out;
}

bool has_leading_zero(const Decimal& number) { return number.whole.size() > 1 && number.whole[0] == '0'; }

// 10^18 is the largest power of ten in an int64: any exponent beyond the clamp decides the outcome by its sign.
int clamped_exponent(const std::string& digits) {
  constexpr int clamp = 1'000'000;
  int value = 0;
  if (digits.empty()) return 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error == std::errc::result_out_of_range) return digits[0] == '-' ? -clamp : clamp;
  return value < -clamp ? -clamp : value > clamp ? clamp : value;
}

}  // namespace

ParsedNumber<std::int64_t> parse_integer(std::string_view text) {
  const auto number = take_apart(text);
  if (!number) return {0, NumberFault::not_a_number};
  if (has_leading_zero(*number)) return {0, NumberFault::leading_zero};
  std::string digits = number->whole + number->fraction;
  int exponent = clamped_exponent(number->exponent) - static_cast<int>(number->fraction.size());
  while (!digits.empty() && digits.front() == '0') digits.erase(digits.begin());
  while (!digits.empty() && digits.back() == '0') {
    digits.pop_back();
    ++exponent;
  }
  if (digits.empty()) return {};
  if (exponent < 0) return {0, NumberFault::not_exact};
  if (digits.size() + static_cast<std::size_t>(exponent) > 19) return {0, NumberFault::too_large};
  digits.append(static_cast<std::size_t>(exponent), '0');
  if (number->negative) digits.insert(digits.begin(), '-');
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc()) return {0, NumberFault::too_large};
  return {value, NumberFault::none};
}

ParsedNumber<double> parse_real(std::string_view text) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  if (text == ".inf" || text == "+.inf") return {infinity, NumberFault::none};
  if (text == "-.inf") return {-infinity, NumberFault::none};
  const auto number = take_apart(text);
  if (!number) return {0, NumberFault::not_a_number};
  if (has_leading_zero(*number)) return {0, NumberFault::leading_zero};
  std::string plain = number->negative ? "-" : "";
  plain += number->whole.empty() ? "0" : number->whole;
  if (!number->fraction.empty()) plain += "." + number->fraction;
  if (!number->exponent.empty()) plain += "e" + number->exponent;
  double value = 0;
  const auto [end, error] = std::from_chars(plain.data(), plain.data() + plain.size(), value);
  if (error != std::errc()) return {0, NumberFault::too_large};
  return {value, NumberFault::none};
}

std::string write_real(double value) {
  if (std::isinf(value)) return value < 0 ? "-.inf" : ".inf";
  char buffer[40];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
  std::string out(buffer, end);
  // PyYAML (YAML 1.1) takes 1e-05 for text, 1.0e-05 for a real.
  if (out.find('.') == std::string::npos && out.find('n') == std::string::npos) {
    const std::size_t exponent = out.find('e');
    out.insert(exponent == std::string::npos ? out.size() : exponent, ".0");
  }
  return out;
}

namespace {

std::string shown(std::int64_t value) { return std::to_string(value); }
std::string shown(double value) {
  std::string out = write_real(value);
  if (out.ends_with(".0")) out.resize(out.size() - 2);
  return out;
}

template <class Range>
std::string describe_range(const Range& range) {
  const Range all;
  if (range.low == all.low && range.high == all.high) return "";
  if (range.high == all.high) return "at least " + shown(range.low);
  if (range.low == all.low) return "at most " + shown(range.high);
  return shown(range.low) + " to " + shown(range.high);
}

}  // namespace

std::string range_text(const IntRange& range) { return describe_range(range); }
std::string range_text(const RealRange& range) { return describe_range(range); }

}  // namespace qanat
