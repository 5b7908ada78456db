#include <cmath>

#include "core/config_scalar.h"
#include "core/config_values.h"
#include "core/error.h"

namespace qanat {
namespace {

using Json = nlohmann::ordered_json;

// Text in a table cell: '|' would end it, a line end would end the row.
std::string cell(std::string_view words) {
  std::string out;
  for (const char c : words) {
    if (c == '|')
      out += "\\|";
    else
      out += c == '\n' ? ' ' : c;
  }
  return out;
}

std::string code(const Json& value) { return '`' + cell(write_yaml_value(value)) + '`'; }

class Reference final : public ConfigVisitor {
 public:
  explicit Reference(const std::string& title) : sections_{{"", title, "", ""}}, open_{0} {}

  [[nodiscard]] std::string page() const {
    std::string out;
    for (const auto& section : sections_) {
      out += out.empty() ? "# " + section.heading + "\n" : "\n## " + section.heading + "\n";
      if (!section.help.empty()) out += '\n' + section.help + '\n';
      if (section.rows.empty()) continue;
      out += "\n| key | type | default | range | what |\n|---|---|---|---|---|\n" + section.rows;
    }
    return out;
  }

  void field(std::string_view name, bool& value, std::string_view help) override {
    row(name, "boolean", value, "", help);
  }
  void field(std::string_view name, std::int64_t& value, std::string_view help, IntRange range) override {
    row(name, "integer", value, range_text(range), help);
  }
  void field(std::string_view name, double& value, std::string_view help, RealRange range) override {
    row(name, "real", value, range_text(range), help);
  }
  void field(std::string_view name, std::string& value, std::string_view help,
             std::vector<std::string_view> choices) override {
    std::string range;
    for (const auto choice : choices) range += text(range.empty() ? "" : ", ", '`', choice, '`');
    row(name, choices.empty() ? "text" : "choice", value, range, help);
  }
  void field(std::string_view name, std::vector<std::int64_t>& value, std::string_view help, IntRange range) override {
    row(name, "list of integers", value, range_text(range), help);
  }
  void field(std::string_view name, std::vector<double>& value, std::string_view help, RealRange range) override {
    row(name, "list of reals", value, range_text(range), help);
  }
  void field(std::string_view name, std::vector<std::string>& value, std::string_view help) override {
    row(name, "list of texts", value, "", help);
  }

 protected:
  void begin_section(std::string_view name, std::string_view help) override {
    const std::string path = sections_[open_.back()].prefix + std::string(name);
    begin(path + '.', path, help);
  }
  void end_section() override { open_.pop_back(); }

  std::size_t begin_list(std::string_view name, std::string_view help, std::size_t size) override {
    const std::string path = sections_[open_.back()].prefix + std::string(name);
    begin(path + ".N.", path,
          text(help, " A list; N counts its entries from 0, by default there ", size == 1 ? "is " : "are ", size,
               ". Each entry has:"));
    return size;
  }
  void begin_entry(std::size_t) override {}
  void end_entry() override {}
  void end_list() override { open_.pop_back(); }
  bool describes_types() const override { return true; }

 private:
  struct Section {
    std::string prefix;  // of its keys: "replay."
    std::string heading;
    std::string help;
    std::string rows;
  };

  void begin(const std::string& prefix, const std::string& heading, std::string_view help) {
    open_.push_back(sections_.size());
    sections_.push_back({prefix, heading, std::string(help), ""});
  }

  void row(std::string_view name, std::string_view type, const Json& value, std::string_view range,
           std::string_view help) {
    Section& section = sections_[open_.back()];
    section.rows +=
        text("| `", section.prefix, name, "` | ", type, " | ", code(value), " | ", range, " | ", cell(help), " |\n");
  }

  std::vector<Section> sections_;  // in the order they began
  std::vector<std::size_t> open_;  // indices of those that have begun and not ended
};

}  // namespace

std::string detail::config_reference(const Describe& describe, const std::string& title) {
  Reference reference(title);
  describe(reference);
  return reference.page();
}

}  // namespace qanat
