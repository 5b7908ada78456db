#include "core/config_writer.h"

#include <cmath>

#include "core/config_scalar.h"
#include "core/config_values.h"
#include "core/error.h"
#include "core/utf8.h"

namespace qanat {
namespace {

using Json = nlohmann::ordered_json;

class Values final : public ConfigVisitor {
 public:
  Values() { open_.push_back(Json::object()); }

  [[nodiscard]] Json take() { return std::move(open_.front()); }

  void field(std::string_view name, bool& value, std::string_view) override { put(name, value); }
  void field(std::string_view name, std::int64_t& value, std::string_view, IntRange) override { put(name, value); }
  void field(std::string_view name, double& value, std::string_view, RealRange) override { put(name, value); }
  void field(std::string_view name, std::string& value, std::string_view, std::vector<std::string_view>) override {
    put(name, value);
  }
  void field(std::string_view name, std::vector<std::int64_t>& value, std::string_view, IntRange) override {
    put(name, value);
  }
  void field(std::string_view name, std::vector<double>& value, std::string_view, RealRange) override {
    put(name, value);
  }
  void field(std::string_view name, std::vector<std::string>& value, std::string_view) override { put(name, value); }

 protected:
  void begin_section(std::string_view name, std::string_view) override { begin(name, Json::object()); }
  void end_section() override { end(); }
  std::size_t begin_list(std::string_view name, std::string_view, std::size_t size) override {
    begin(name, Json::array());
    return size;
  }
  void begin_entry(std::size_t) override { begin("", Json::object()); }
  void end_entry() override { end(); }
  void end_list() override { end(); }

 private:
  void begin(std::string_view name, Json empty) {
    names_.emplace_back(name);
    open_.push_back(std::move(empty));
  }
  void end() {
    Json done = std::move(open_.back());
    open_.pop_back();
    const std::string name = std::move(names_.back());
    names_.pop_back();
    put(name, std::move(done));
  }
  void put(std::string_view name, Json value) {
    if (open_.back().is_array())
      open_.back().push_back(std::move(value));
    else
      open_.back()[std::string(name)] = std::move(value);
  }

  std::vector<Json> open_;
  std::vector<std::string> names_;
};

// Words that some YAML reader takes for something else than text.
bool is_plain_text(std::string_view words) {
  static constexpr std::string_view reserved[] = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"};
  if (words.empty()) return false;
  std::string lower;
  for (const char c : words) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    const bool inner = (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '/';
    if (!letter && (lower.empty() || !inner)) return false;
    lower += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  for (const auto word : reserved) {
    if (lower == word) return false;
  }
  return true;
}

class Printer {
 public:
  [[nodiscard]] std::string take() { return std::move(out_); }

  // `first_prefix` replaces the indentation of the first line: "- " in a list.
  void map(const Json& value, const std::string& indent, std::string first_prefix, const std::string& path) {
    if (value.empty()) out_ += first_prefix + "{}\n";
    for (const auto& [key, child] : value.items()) {
      out_ += first_prefix + key + ':';
      first_prefix = indent;
      const std::string child_path = path.empty() ? key : path + '.' + key;
      if (child.is_object() && !child.empty()) {
        out_ += '\n';
        map(child, indent + "  ", indent + "  ", child_path);
      } else if (child.is_array() && !child.empty() && child.front().is_object()) {
        out_ += '\n';
        for (const auto& entry : child) map(entry, indent + "    ", indent + "  - ", child_path);
      } else {
        check(child, child_path);
        out_ += ' ' + write_yaml_value(child) + '\n';
      }
    }
  }

 private:
  static void check(const Json& value, const std::string& path) {
    if (value.is_array()) {
      for (const auto& item : value) check(item, path);
    } else if (value.is_number_float() && std::isnan(value.get<double>())) {
      throw ConfigError(text("key '", path, "' is NaN, which a configuration cannot hold"));
    } else if (value.is_string() && !is_utf8(value.get_ref<const std::string&>())) {
      throw ConfigError(text("key '", path, "' is text that is not UTF-8, which a configuration cannot hold"));
    }
  }

  std::string out_;
};

}  // namespace

Json config_values(const detail::Describe& describe) {
  Values values;
  describe(values);
  return values.take();
}

std::string quote_yaml(std::string_view words) {
  constexpr char digits[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : words) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (c == '\n') {
      out += "\\n";
    } else if (code < 0x20 || code == 0x7f) {
      out += {'\\', 'x', digits[code >> 4], digits[code & 15]};
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string write_yaml_value(const Json& value) {
  if (value.is_string()) {
    const auto& words = value.get_ref<const std::string&>();
    return is_plain_text(words) ? words : quote_yaml(words);
  }
  if (value.is_number_float()) return write_real(value.get<double>());
  if (value.is_array()) {
    std::string out;
    for (const auto& item : value) out += (out.empty() ? "" : ", ") + write_yaml_value(item);
    return '[' + out + ']';
  }
  return value.dump();
}

std::string detail::write_config(const Describe& describe) {
  Printer printer;
  printer.map(config_values(describe), "", "", "");
  return printer.take();
}

}  // namespace qanat
