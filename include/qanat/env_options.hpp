// The options string of an environment, "key=value,key=value", for classes written with "qanat/env.hpp".
//
// Spaces around keys and values are ignored; a value holds no comma; a key comes once. Every getter names its key as
// known, so that a misspelt one is refused with the list of those there are. Not thread safe.
#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qanat::env {

class Options {
 public:
  // Throws std::invalid_argument when a part is not key=value or a key comes twice.
  explicit Options(std::string_view text) {
    if (trim(text).empty()) return;
    while (true) {
      const std::size_t comma = text.find(',');
      add(text.substr(0, comma));
      if (comma == std::string_view::npos) return;
      text.remove_prefix(comma + 1);
    }
  }

  // Each getter gives the fallback when the key is absent, and throws std::invalid_argument naming key, value and
  // what was wanted when the value does not fit.
  [[nodiscard]] double number(const std::string& key, double fallback,
                              double low = -std::numeric_limits<double>::infinity(),
                              double high = std::numeric_limits<double>::infinity()) const {
    return parsed(key, fallback, low, high, "a number");
  }

  [[nodiscard]] std::int64_t integer(const std::string& key, std::int64_t fallback,
                                     std::int64_t low = std::numeric_limits<std::int64_t>::min(),
                                     std::int64_t high = std::numeric_limits<std::int64_t>::max()) const {
    return parsed(key, fallback, low, high, "a whole number");
  }

  [[nodiscard]] bool boolean(const std::string& key, bool fallback) const {
    const std::string* value = find(key);
    if (value == nullptr) return fallback;
    if (*value == "true" || *value == "1") return true;
    if (*value == "false" || *value == "0") return false;
    throw std::invalid_argument("option " + key + "=" + *value + ": true or false wanted");
  }

  // One of `choices`, as its index.
  [[nodiscard]] std::size_t choice(const std::string& key, const std::vector<std::string>& choices,
                                   std::size_t fallback) const {
    const std::string* value = find(key);
    if (value == nullptr) return fallback;
    std::string wanted;
    for (std::size_t i = 0; i < choices.size(); ++i) {
      if (choices[i] == *value) return i;
      wanted += (i == 0 ? "" : ", ") + choices[i];
    }
    throw std::invalid_argument("option " + key + "=" + *value + ": one of " + wanted + " wanted");
  }

  [[nodiscard]] std::string text(const std::string& key, std::string fallback) const {
    const std::string* value = find(key);
    if (value != nullptr) return *value;
    return fallback;
  }

  // Throws std::invalid_argument when a key was given that no getter has asked for.
  void refuse_unknown() const {
    for (const auto& [key, value] : given_) {
      if (known_.contains(key)) continue;
      std::string list;
      for (const auto& known : known_) list += (list.empty() ? "" : ", ") + known;
      throw std::invalid_argument("unknown option " + key + "; " +
                                  (list.empty() ? "this environment has none" : "known: " + list));
    }
  }

 private:
  static std::string_view trim(std::string_view text) {
    const std::size_t first = text.find_first_not_of(" \t");
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(" \t") - first + 1);
  }

  void add(std::string_view part) {
    const std::size_t equals = part.find('=');
    const std::string_view key = equals == std::string_view::npos ? std::string_view() : trim(part.substr(0, equals));
    if (key.empty()) throw std::invalid_argument("option \"" + std::string(part) + "\": key=value wanted");
    for (const auto& [other, value] : given_) {
      if (other == key) throw std::invalid_argument("option " + other + " is given twice");
    }
    given_.emplace_back(key, trim(part.substr(equals + 1)));
  }

  const std::string* find(const std::string& key) const {
    known_.insert(key);
    for (const auto& [given, value] : given_) {
      if (given == key) return &value;
    }
    return nullptr;
  }

  template <class T>
  T parsed(const std::string& key, T fallback, T low, T high, const char* kind) const {
    const std::string* value = find(key);
    if (value == nullptr) return fallback;
    T result{};
    const char* end = value->data() + value->size();
    const auto [stop, error] = std::from_chars(value->data(), end, result);
    // The comparison is written so that NaN fails it.
    if (error == std::errc() && stop == end && result >= low && result <= high) return result;
    throw std::invalid_argument("option " + key + "=" + *value + ": " + kind + " in [" + std::to_string(low) + ", " +
                                std::to_string(high) + "] wanted");
  }

  std::vector<std::pair<std::string, std::string>> given_;
  mutable std::set<std::string> known_;
};

}  // namespace qanat::env
