#include "core/config_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <charconv>
#include <set>
#include <sstream>

#include "core/error.h"
#include "core/files.h"
#include "core/utf8.h"

namespace qanat {
namespace {

using Kind = ConfigNode::Kind;

constexpr std::uint64_t largest_file_bytes = 1 << 20;

// yaml-cpp replaces bad bytes silently, and takes the character 4 for the end of the text.
void refuse_bad_characters(std::string_view yaml, const std::string& source, bool has_lines) {
  int line = 1;
  while (!yaml.empty()) {
    const std::size_t length = utf8_length(yaml);
    const auto first = static_cast<unsigned char>(yaml.front());
    const bool control = (first < 0x20 && first != '\t' && first != '\n' && first != '\r') || first == 0x7f;
    if (length == 0 || control) {
      throw ConfigError(text(ConfigOrigin{source, has_lines ? line : 0}.text(),
                             length == 0 ? ": the text is not UTF-8" : ": a control character stands in the text",
                             " (byte ", static_cast<int>(first), ")"));
    }
    if (first == '\n') ++line;
    yaml.remove_prefix(length);
  }
}

// Builds our tree from the parser's events. yaml-cpp's own tree would hide duplicate keys and the lines of keys.
class TreeBuilder final : public YAML::EventHandler {
 public:
  TreeBuilder(std::string source, bool has_lines) : source_(std::move(source)), has_lines_(has_lines) {}

  [[nodiscard]] ConfigNode take() { return std::move(root_); }
  [[nodiscard]] const std::vector<std::string>& duplicates() const { return duplicates_; }
  [[nodiscard]] ConfigOrigin origin(const YAML::Mark& mark) const {
    return {source_, has_lines_ && mark.line >= 0 ? mark.line + 1 : 0};  // the library counts from 0
  }
  [[noreturn]] void fail(const YAML::Mark& mark, std::string_view message) const {
    throw ConfigError(text(origin(mark).text(), ": ", message));
  }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnAnchor(const YAML::Mark& mark, const std::string&) override { fail(mark, "anchors are not supported"); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { fail(mark, "aliases are not supported"); }

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    refuse_anchor(mark, anchor);
    if (wants_key()) fail(mark, "a key is missing before ':'");
    add(mark, Kind::null);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    if (wants_key()) {
      take_key(mark, value);
      return;
    }
    ConfigNode& node = add(mark, Kind::scalar);
    node.scalar = value;
    node.quoted = tag == "!";  // the library's sign for quotes and block scalars; "?" means plain
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, Kind::sequence);
  }
  void OnSequenceEnd() override { stack_.pop_back(); }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, Kind::map);
  }
  void OnMapEnd() override { stack_.pop_back(); }

 private:
  struct Open {
    ConfigNode* node;  // stays put: only the innermost open container grows
    std::set<std::string> keys;
    bool has_key = false;  // kind map: the last entry waits for its value
  };

  [[nodiscard]] bool wants_key() const {
    return !stack_.empty() && stack_.back().node->kind == Kind::map && !stack_.back().has_key;
  }

  void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) const {
    if (anchor != YAML::NullAnchor) fail(mark, "anchors are not supported");
  }
  void refuse_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (!tag.empty() && tag != "?" && tag != "!") fail(mark, text("tags are not supported, saw '", tag, "'"));
  }

  void take_key(const YAML::Mark& mark, const std::string& key) {
    Open& top = stack_.back();
    if (!top.keys.insert(key).second) {
      for (const auto& entry : top.node->entries) {
        if (entry.key != key) continue;
        duplicates_.push_back(
            text(origin(mark).text(), ": key '", path(), key, "' appears twice, first at ", entry.origin.text()));
        break;
      }
    }
    top.node->entries.push_back({key, origin(mark), {}});
    top.has_key = true;
  }

  ConfigNode& add(const YAML::Mark& mark, Kind kind) {
    ConfigNode* node = &root_;
    if (!stack_.empty()) {
      Open& top = stack_.back();
      node = top.node->kind == Kind::map ? &top.node->entries.back().value : &top.node->items.emplace_back();
      top.has_key = false;
    }
    node->kind = kind;
    node->origin = origin(mark);
    return *node;
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, Kind kind) {
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    if (wants_key()) fail(mark, "a key must be plain text");
    ConfigNode& node = add(mark, kind);
    stack_.push_back({&node, {}, false});
  }

  // "replay.shards.0." of the innermost open container.
  [[nodiscard]] std::string path() const {
    std::string out;
    for (std::size_t i = 0; i + 1 < stack_.size(); ++i) {
      const ConfigNode& node = *stack_[i].node;
      out += node.kind == Kind::map ? node.entries.back().key : std::to_string(node.items.size() - 1);
      out += '.';
    }
    return out;
  }

  std::string source_;
  bool has_lines_;
  ConfigNode root_;
  std::vector<Open> stack_;
  std::vector<std::string> duplicates_;
};

// Looks at nothing: for the parser's own errors.
class SyntaxCheck final : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}
};

// `has_lines` is false for an override, whose lines are of no use to its author.
ConfigNode parse(std::string_view yaml, const std::string& source, bool has_lines) {
  refuse_bad_characters(yaml, source, has_lines);
  TreeBuilder builder(source, has_lines);
  TreeBuilder second(source, has_lines);
  SyntaxCheck check;
  std::istringstream first_pass{std::string(yaml)};
  std::istringstream in{std::string(yaml)};
  try {
    // Before a missing bracket is noticed, the parser has reported odd keys, which are not what is wrong.
    YAML::Parser checker(first_pass);
    // Not "while": a stray ']' is a document that consumes nothing, for ever.
    if (checker.HandleNextDocument(check)) checker.HandleNextDocument(check);
    YAML::Parser parser(in);
    parser.HandleNextDocument(builder);
    if (parser.HandleNextDocument(second)) {
      throw ConfigError(text(second.take().origin.text(), ": a second document begins, wanted one"));
    }
  } catch (const YAML::Exception& error) {
    builder.fail(error.mark, text("not YAML: ", error.msg));
  }
  if (!builder.duplicates().empty()) {
    std::string message;
    for (const auto& line : builder.duplicates()) message += (message.empty() ? "" : "\n") + line;
    throw ConfigError(message);
  }
  return builder.take();
}

std::vector<std::string> split_path(std::string_view path, const std::string& source) {
  std::vector<std::string> parts;
  while (true) {
    const std::size_t dot = path.find('.');
    parts.emplace_back(path.substr(0, dot));
    if (parts.back().empty()) throw ConfigError(text(source, ": the key has an empty part, wanted a.b=value"));
    if (dot == std::string_view::npos) return parts;
    path.remove_prefix(dot + 1);
  }
}

// The child of `node` called `part`, made when a map has none of that name.
ConfigNode& descend(ConfigNode& node, const std::string& part, std::string_view above, const ConfigOrigin& origin) {
  if (node.kind == Kind::sequence) {
    std::size_t index = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), index);
    if (error != std::errc() || end != part.data() + part.size() || index >= node.items.size()) {
      throw ConfigError(text(origin.text(), ": '", above, "' is a list of ", node.items.size(), " at ",
                             node.origin.text(), ", '", part, "' is no index into it"));
    }
    return node.items[index];
  }
  if (node.kind == Kind::scalar) {
    throw ConfigError(
        text(origin.text(), ": '", above, "' is a single value at ", node.origin.text(), ", not a section"));
  }
  if (node.kind == Kind::null) {
    node.kind = Kind::map;
    node.origin = origin;
    node.from_override = true;
  }
  for (auto& entry : node.entries) {
    if (entry.key == part) return entry.value;
  }
  return node.entries.emplace_back(ConfigEntry{part, origin, {}}).value;
}

}  // namespace

std::string ConfigOrigin::text() const { return line > 0 ? source + ':' + std::to_string(line) : source; }

const ConfigNode* ConfigNode::find(std::string_view key) const {
  for (const auto& entry : entries) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}

ConfigTree::ConfigTree(std::string_view yaml, const std::string& source) : root_(parse(yaml, source, true)) {}

ConfigTree ConfigTree::load(const std::filesystem::path& path) {
  return ConfigTree(read_text_file(path, largest_file_bytes), path.string());
}

void ConfigTree::set(std::string_view assignment) {
  const ConfigOrigin origin{"--set " + std::string(assignment), 0};
  const std::size_t equals = assignment.find('=');
  if (equals == std::string_view::npos) throw ConfigError(text(origin.source, ": '=' is missing, wanted a.b=value"));
  const auto parts = split_path(assignment.substr(0, equals), origin.source);
  ConfigNode value = parse(assignment.substr(equals + 1), origin.source, false);
  if (value.kind == Kind::map) {
    throw ConfigError(text(origin.source,
                           ": the value is a map; set each of its keys by itself, or quote what is one text: "
                           "--set \"NAME='{...}'\""));
  }
  value.origin = origin;
  if (root_.kind != Kind::null && root_.kind != Kind::map) {
    throw ConfigError(text(root_.origin.text(), ": the file is not a map of keys to values"));
  }
  // Nothing fails below a node that had to be made, so an error leaves the tree as it was.
  ConfigNode* node = &root_;
  std::string above;
  for (const auto& part : parts) {
    node = &descend(*node, part, above, origin);
    above += (above.empty() ? "" : ".") + part;
  }
  *node = std::move(value);
}

}  // namespace qanat
