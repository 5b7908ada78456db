// Settings as plain structs that describe themselves.
//
// A component's settings are one struct with defaults, and one function that names every field:
//
//   struct ReplayConfig {
//     std::int64_t capacity_steps = 1'000'000;
//     double alpha = 0.6;
//     void describe(ConfigVisitor& v) {
//       v.field("capacity_steps", capacity_steps, "Steps kept over all shards.", {.low = 1});
//       v.field("alpha", alpha, "Priority exponent; 0 is uniform.", {.low = 0, .high = 1});
//     }
//   };
//
// The strict YAML reader, the writer of resolved configurations, the JSON Schema and the reference page
// are visitors of that one description, so they cannot disagree.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qanat {

struct IntRange {
  std::int64_t low = std::numeric_limits<std::int64_t>::min();
  std::int64_t high = std::numeric_limits<std::int64_t>::max();
};

struct RealRange {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
};

class ConfigVisitor {
 public:
  virtual ~ConfigVisitor() = default;

  // `help` is one or two sentences with the unit; it becomes the reference page and the schema's description.
  virtual void field(std::string_view name, bool& value, std::string_view help) = 0;
  virtual void field(std::string_view name, std::int64_t& value, std::string_view help, IntRange range = {}) = 0;
  virtual void field(std::string_view name, double& value, std::string_view help, RealRange range = {}) = 0;
  // With `choices` the value must be one of them.
  virtual void field(std::string_view name, std::string& value, std::string_view help,
                     std::vector<std::string_view> choices = {}) = 0;
  virtual void field(std::string_view name, std::vector<std::int64_t>& value, std::string_view help,
                     IntRange range = {}) = 0;
  virtual void field(std::string_view name, std::vector<double>& value, std::string_view help,
                     RealRange range = {}) = 0;
  virtual void field(std::string_view name, std::vector<std::string>& value, std::string_view help) = 0;

  template <class Struct>
  void section(std::string_view name, Struct& value, std::string_view help) {
    begin_section(name, help);
    value.describe(*this);
    end_section();
  }

  // A YAML sequence of maps. A visitor says how many entries it has seen (readers) or leaves the list as it is.
  template <class Struct>
  void list(std::string_view name, std::vector<Struct>& value, std::string_view help) {
    const std::size_t size = begin_list(name, help, value.size());
    if (list_starts_afresh()) value.clear();
    value.resize(size);
    if (describes_types()) {  // schema and reference: one entry stands for all
      Struct example;
      begin_entry(0);
      example.describe(*this);
      end_entry();
    } else {
      for (std::size_t i = 0; i < value.size(); ++i) {
        begin_entry(i);
        value[i].describe(*this);
        end_entry();
      }
    }
    end_list();
  }

 protected:
  virtual void begin_section(std::string_view name, std::string_view help) = 0;
  virtual void end_section() = 0;
  [[nodiscard]] virtual std::size_t begin_list(std::string_view name, std::string_view help, std::size_t size) = 0;
  virtual void begin_entry(std::size_t index) = 0;
  virtual void end_entry() = 0;
  virtual void end_list() = 0;
  // Asked right after begin_list: whether the entries begin as Struct{} rather than as they are.
  [[nodiscard]] virtual bool list_starts_afresh() const { return false; }
  [[nodiscard]] virtual bool describes_types() const { return false; }
};

}  // namespace qanat
