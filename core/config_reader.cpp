#include "core/config_reader.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "core/config_scalar.h"
#include "core/edit_distance.h"
#include "core/error.h"

namespace qanat {
namespace {

using Kind = ConfigNode::Kind;

constexpr std::size_t most_problems_told = 50;

// The most likely of `candidates`, or empty when none is near.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  const std::string* best = nullptr;
  EditDistance best_distance;
  for (const auto& candidate : candidates) {
    const EditDistance distance = edit_distance(word, candidate);
    if (distance.prefix > word.size() / 2) continue;
    if (!best || std::pair(distance.prefix, distance.whole) < std::pair(best_distance.prefix, best_distance.whole)) {
      best = &candidate;
      best_distance = distance;
    }
  }
  return best ? *best : std::string();
}

template <class Strings>
std::string joined(const Strings& strings) {
  std::string out;
  for (const auto& s : strings) out += (out.empty() ? "" : ", ") + std::string(s);
  return out;
}

// Text from the file in a message: cut to a readable length, and without line ends.
std::string on_one_line(std::string_view words) {
  constexpr std::size_t longest = 60;
  std::size_t size = std::min(words.size(), longest);
  while (size < words.size() && (words[size] & 0xc0) == 0x80) --size;  // not in the middle of a UTF-8 character
  std::string out;
  for (const char c : words.substr(0, size)) out += c == '\n' ? std::string("\\n") : std::string(1, c);
  return size < words.size() ? out + "..." : out;
}

std::string_view kind_name(const ConfigNode& node) {
  switch (node.kind) {
    case Kind::null:
      return "empty";
    case Kind::scalar:
      return "a single value";
    case Kind::sequence:
      return "a sequence";
    case Kind::map:
      return "a section of keys";
  }
  return "";
}

class Reader final : public ConfigVisitor {
 public:
  explicit Reader(const ConfigTree& tree) { frames_.push_back({section_of(&tree.root(), ""), "", {}}); }

  // Throws what was found.
  void finish() {
    close();
    for (const auto& key : unknown_) resolve(key);
    if (problems_.empty()) return;
    // Overrides (line 0) come last: they were said after the file.
    std::stable_sort(problems_.begin(), problems_.end(), [](const Problem& a, const Problem& b) {
      return (a.line == 0 ? std::numeric_limits<int>::max() : a.line) <
             (b.line == 0 ? std::numeric_limits<int>::max() : b.line);
    });
    std::string message;
    for (std::size_t i = 0; i < std::min(problems_.size(), most_problems_told); ++i) {
      message += (i ? "\n" : "") + problems_[i].message;
    }
    if (problems_.size() > most_problems_told) untold_ += problems_.size() - most_problems_told;
    if (untold_ > 0) message += text("\nand ", untold_, " more");
    throw ConfigError(message);
  }

  void field(std::string_view name, bool& value, std::string_view) override { read(name, value, NoLimits{}); }
  void field(std::string_view name, std::int64_t& value, std::string_view, IntRange range) override {
    read(name, value, range);
  }
  void field(std::string_view name, double& value, std::string_view, RealRange range) override {
    read(name, value, range);
  }
  void field(std::string_view name, std::string& value, std::string_view,
             std::vector<std::string_view> choices) override {
    read(name, value, choices);
  }
  void field(std::string_view name, std::vector<std::int64_t>& value, std::string_view, IntRange range) override {
    read_all(name, value, range);
  }
  void field(std::string_view name, std::vector<double>& value, std::string_view, RealRange range) override {
    read_all(name, value, range);
  }
  void field(std::string_view name, std::vector<std::string>& value, std::string_view) override {
    read_all(name, value, std::vector<std::string_view>());
  }

 protected:
  void begin_section(std::string_view name, std::string_view) override {
    const ConfigNode* node = find(name);
    const std::string path = path_of(name);
    frames_.push_back({section_of(node, path), path, {}});
  }
  void end_section() override { close(); }

  std::size_t begin_list(std::string_view name, std::string_view, std::size_t size) override {
    const ConfigNode* node = find(name);
    List list{path_of(name), {}, false};
    if (node)
      list.afresh = elements(*node, list.path, size, list.nodes);
    else
      list.nodes.assign(size, nullptr);
    lists_.push_back(std::move(list));
    return lists_.back().nodes.size();
  }
  bool list_starts_afresh() const override { return lists_.back().afresh; }
  void begin_entry(std::size_t index) override {
    const List& list = lists_.back();
    const std::string path = list.path + '.' + std::to_string(index);
    const ConfigNode* node = list.nodes[index];
    if (node && node->kind == Kind::null) {
      problem(node->origin, path, "is empty, wanted a section of keys");
      node = nullptr;
    }
    frames_.push_back({section_of(node, path), path, {}});
  }
  void end_entry() override { close(); }
  void end_list() override { lists_.pop_back(); }

 private:
  struct Frame {
    const ConfigNode* node;  // a map, or null: nothing was written
    std::string path;
    std::vector<std::string> known;
  };
  struct List {
    std::string path;
    std::vector<const ConfigNode*> nodes;  // one an entry; null: nothing was written
    bool afresh;
  };
  struct Problem {
    int line;
    std::string message;
  };
  struct NoLimits {};
  struct UnknownKey {
    ConfigOrigin origin;
    std::string path;
    std::string key;
    std::vector<std::string> known;  // in its section
  };

  [[nodiscard]] std::string path_of(std::string_view name) const {
    const std::string& above = frames_.back().path;
    return above.empty() ? std::string(name) : above + '.' + std::string(name);
  }

  void problem(const ConfigOrigin& origin, std::string_view path, std::string_view message) {
    problems_.push_back({origin.line, text(origin.text(), ": ", path.empty() ? "the file" : "key '", path,
                                           path.empty() ? "" : "'", ' ', message)});
  }

  const ConfigNode* find(std::string_view name) {
    Frame& frame = frames_.back();
    frame.known.emplace_back(name);
    known_paths_.push_back(path_of(name));
    return frame.node ? frame.node->find(name) : nullptr;
  }

  const ConfigNode* section_of(const ConfigNode* node, std::string_view path) {
    if (!node || node->kind == Kind::map) return node;
    if (node->kind != Kind::null)
      problem(node->origin, path, text("is ", kind_name(*node), ", wanted a section of keys"));
    return nullptr;
  }

  void close() {
    Frame& frame = frames_.back();
    if (frame.node) {
      for (const auto& entry : frame.node->entries) {
        if (std::find(frame.known.begin(), frame.known.end(), entry.key) != frame.known.end()) continue;
        if (unknown_.size() < most_problems_told) {
          unknown_.push_back({entry.origin, frame.path, entry.key, frame.known});
        } else {
          ++untold_;
        }
      }
    }
    frames_.pop_back();
  }

  // Only now is every key of every section known.
  void resolve(const UnknownKey& unknown) {
    const std::string prefix = unknown.path.empty() ? "" : unknown.path + '.';
    std::string message = "is unknown";
    std::string guess;
    for (const auto& path : known_paths_) {
      if (path.size() > unknown.key.size() && path.ends_with('.' + unknown.key)) guess = path;
      if (path == unknown.key) guess = path;
      if (!guess.empty()) break;
    }
    constexpr std::size_t longest_key = 100;
    if (guess.empty() && unknown.key.size() <= longest_key) {
      guess = nearest(unknown.key, unknown.known);
      if (!guess.empty()) guess.insert(0, prefix);
    }
    if (!guess.empty())
      message += "; did you mean '" + guess + "'?";
    else if (!unknown.known.empty())
      message += "; there are: " + joined(unknown.known);
    problem(unknown.origin, prefix + on_one_line(unknown.key), message);
  }

  // The nodes of a list of `size` entries by default; true when the file's list replaces that one.
  bool elements(const ConfigNode& node, const std::string& path, std::size_t size,
                std::vector<const ConfigNode*>& nodes) {
    if (node.kind == Kind::sequence) {
      for (const auto& item : node.items) nodes.push_back(&item);
      return true;
    }
    nodes.assign(size, nullptr);
    if (node.kind != Kind::map || !node.from_override) {
      problem(node.origin, path, text("is ", kind_name(node), ", wanted a sequence, such as [a, b] or []"));
      return false;
    }
    for (const auto& entry : node.entries) {  // overrides of single entries of the default
      std::size_t index = 0;
      const char* last = entry.key.data() + entry.key.size();
      const auto [end, error] = std::from_chars(entry.key.data(), last, index);
      if (error != std::errc() || end != last || index >= size) {
        problem(entry.origin, path + '.' + entry.key, text("is no index into the list, which has ", size));
      } else {
        nodes[index] = &entry.value;
      }
    }
    return false;
  }

  template <class T, class Limits>
  void read(std::string_view name, T& value, const Limits& limits) {
    if (const ConfigNode* node = find(name)) take(*node, path_of(name), value, limits);
  }

  template <class T, class Limits>
  void read_all(std::string_view name, std::vector<T>& values, const Limits& limits) {
    const ConfigNode* node = find(name);
    if (!node) return;
    const std::string path = path_of(name);
    std::vector<const ConfigNode*> nodes;
    if (elements(*node, path, values.size(), nodes)) values.clear();
    values.resize(nodes.size());
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      if (nodes[i]) take(*nodes[i], path + '.' + std::to_string(i), values[i], limits);
    }
  }

  // False, and a problem told, when the node is not a single value.
  bool is_scalar(const ConfigNode& node, std::string_view path, std::string_view type) {
    if (node.kind == Kind::scalar) return true;
    problem(node.origin, path,
            node.kind == Kind::null ? text("has no value, wanted ", type)
                                    : text("is ", kind_name(node), ", wanted ", type));
    return false;
  }

  void take(const ConfigNode& node, std::string_view path, bool& value, const NoLimits&) {
    if (!is_scalar(node, path, "true or false")) return;
    if (!node.quoted && (node.scalar == "true" || node.scalar == "false")) {
      value = node.scalar == "true";
      return;
    }
    problem(node.origin, path, text("is ", quoted(node), ", wanted true or false"));
  }

  void take(const ConfigNode& node, std::string_view path, std::int64_t& value, const IntRange& range) {
    if (!is_scalar(node, path, "an integer")) return;
    store(node, path, "an integer", parse_integer(node.scalar), value, range);
  }
  void take(const ConfigNode& node, std::string_view path, double& value, const RealRange& range) {
    if (!is_scalar(node, path, "a number")) return;
    store(node, path, "a number", parse_real(node.scalar), value, range);
  }

  template <class T, class Range>
  void store(const ConfigNode& node, std::string_view path, std::string_view type, const ParsedNumber<T>& parsed,
             T& value, const Range& range) {
    std::string_view wrong;
    if (node.quoted) {
      wrong = "without quotes";
    } else if (parsed.fault == NumberFault::leading_zero) {
      wrong = "without leading zeros";
    } else if (parsed.fault == NumberFault::too_large) {
      wrong = "that fits into 64 bits";
    }
    if (!wrong.empty() || parsed.fault != NumberFault::none) {
      problem(node.origin, path, text("is ", quoted(node), ", wanted ", type, wrong.empty() ? "" : " ", wrong));
    } else if (!(parsed.value >= range.low && parsed.value <= range.high)) {
      problem(node.origin, path, text("is ", node.scalar, ", wanted ", range_text(range)));
    } else {
      value = parsed.value;
    }
  }

  void take(const ConfigNode& node, std::string_view path, std::string& value,
            const std::vector<std::string_view>& choices) {
    if (!is_scalar(node, path, "text (\"\" is the empty one)")) return;
    if (!choices.empty() && std::find(choices.begin(), choices.end(), node.scalar) == choices.end()) {
      const std::string guess = nearest(node.scalar, {choices.begin(), choices.end()});
      problem(node.origin, path,
              text("is ", quoted(node), ", wanted one of ", joined(choices), guess.empty() ? "" : "; did you mean '",
                   guess, guess.empty() ? "" : "'?"));
      return;
    }
    value = node.scalar;
  }

  static std::string quoted(const ConfigNode& node) {
    const char quote = node.quoted ? '"' : '\'';
    return quote + on_one_line(node.scalar) + quote;
  }

  std::vector<Frame> frames_;
  std::vector<List> lists_;
  std::vector<std::string> known_paths_;
  std::vector<UnknownKey> unknown_;
  std::vector<Problem> problems_;
  std::size_t untold_ = 0;  // problems counted, but not kept
};

}  // namespace

void detail::read_config(const ConfigTree& tree, const std::function<void(ConfigVisitor&)>& describe) {
  Reader reader(tree);
  describe(reader);
  reader.finish();
}

}  // namespace qanat
