#include <cmath>

#include "core/config_values.h"

namespace qanat {
namespace {

using Json = nlohmann::ordered_json;

// JSON has no infinity, so a default of .inf is left out.
bool is_finite(const Json& value) {
  if (value.is_structured()) {
    for (const auto& item : value) {
      if (!is_finite(item)) return false;
    }
  }
  return !value.is_number_float() || std::isfinite(value.get<double>());
}

class Schema final : public ConfigVisitor {
 public:
  explicit Schema(Json values) {
    values_.push_back(std::move(values));
    open_.push_back(empty_object());
  }

  [[nodiscard]] Json take() { return std::move(open_.front()); }

  void field(std::string_view name, bool&, std::string_view help) override { put(name, help, {{"type", "boolean"}}); }
  void field(std::string_view name, std::int64_t&, std::string_view help, IntRange range) override {
    put(name, help, integer(range));
  }
  void field(std::string_view name, double&, std::string_view help, RealRange range) override {
    put(name, help, real(range));
  }
  void field(std::string_view name, std::string&, std::string_view help,
             std::vector<std::string_view> choices) override {
    Json type{{"type", "string"}};
    for (const auto choice : choices) type["enum"].push_back(std::string(choice));
    put(name, help, std::move(type));
  }
  void field(std::string_view name, std::vector<std::int64_t>&, std::string_view help, IntRange range) override {
    put(name, help, {{"type", "array"}, {"items", integer(range)}});
  }
  void field(std::string_view name, std::vector<double>&, std::string_view help, RealRange range) override {
    put(name, help, {{"type", "array"}, {"items", real(range)}});
  }
  void field(std::string_view name, std::vector<std::string>&, std::string_view help) override {
    put(name, help, {{"type", "array"}, {"items", {{"type", "string"}}}});
  }

 protected:
  void begin_section(std::string_view name, std::string_view help) override {
    begin(name, help);
    // An empty section is allowed: "replay:" with every key commented out.
    open_.back()["type"] = Json::array({"object", "null"});
  }
  void end_section() override { end(); }
  std::size_t begin_list(std::string_view name, std::string_view help, std::size_t size) override {
    begin(name, help);
    open_.back() = Json{{"type", "array"}, {"description", help}};
    if (is_finite(values_.back())) open_.back()["default"] = values_.back();
    return size;
  }
  void begin_entry(std::size_t) override {
    open_.push_back(empty_object());
    values_.push_back(Json::object());  // entries have no place in the defaults
  }
  void end_entry() override {
    Json entry = std::move(open_.back());
    open_.pop_back();
    values_.pop_back();
    open_.back()["items"] = std::move(entry);
  }
  void end_list() override { end(); }
  bool describes_types() const override { return true; }

 private:
  static Json empty_object() {
    return {{"type", "object"}, {"additionalProperties", false}, {"properties", Json::object()}};
  }
  static Json integer(IntRange range) {
    const IntRange all;
    Json type{{"type", "integer"}};
    if (range.low != all.low) type["minimum"] = range.low;
    if (range.high != all.high) type["maximum"] = range.high;
    return type;
  }
  static Json real(RealRange range) {
    Json type{{"type", "number"}};
    if (std::isfinite(range.low)) type["minimum"] = range.low;
    if (std::isfinite(range.high)) type["maximum"] = range.high;
    return type;
  }

  void put(std::string_view name, std::string_view help, Json type) {
    const std::string key(name);
    const auto value = values_.back().find(key);
    if (value != values_.back().end() && is_finite(*value)) type["default"] = *value;
    type["description"] = std::string(help);
    open_.back()["properties"][key] = std::move(type);
  }
  void begin(std::string_view name, std::string_view help) {
    names_.emplace_back(name);
    open_.push_back(empty_object());
    open_.back()["description"] = std::string(help);
    const auto value = values_.back().find(names_.back());
    values_.push_back(value != values_.back().end() ? Json(*value) : Json());
    if (values_.back().is_null()) values_.back() = Json::object();
  }
  void end() {
    Json done = std::move(open_.back());
    open_.pop_back();
    values_.pop_back();
    open_.back()["properties"][names_.back()] = std::move(done);
    names_.pop_back();
  }

  std::vector<Json> values_;  // the defaults of each open section
  std::vector<Json> open_;
  std::vector<std::string> names_;
};

}  // namespace

std::string detail::config_schema(const Describe& describe, const std::string& title) {
  Schema schema(config_values(describe));
  describe(schema);
  Json out{{"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"title", title}};
  out.update(schema.take());
  return out.dump(2) + '\n';
}

}  // namespace qanat
