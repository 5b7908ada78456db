// A configuration file as a tree of nodes that know where they were written: what the strict reader
// (core/config_reader.h) walks.
//
// A subset of YAML 1.2: maps with plain-text keys, sequences, scalars, comments. Refused, with file and line: a
// key twice in one map, anchors and aliases, tags, several documents, bytes that are not UTF-8, control
// characters, files over 1 MiB. An empty file is an empty map. Values are plain data; const use is thread safe.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace qanat {

// Where a key or value was written.
struct ConfigOrigin {
  std::string source;  // a file's name, or "--set a.b=c"
  int line = 0;        // from 1; 0: the source has no lines

  [[nodiscard]] std::string text() const;  // "run.yaml:12" or "--set a.b=c"
};

struct ConfigEntry;

struct ConfigNode {
  enum class Kind { null, scalar, sequence, map };

  Kind kind = Kind::null;
  ConfigOrigin origin;
  std::string scalar;                // kind scalar: its text, quotes and escapes resolved
  bool quoted = false;               // kind scalar: it was in quotes, so it is text whatever it looks like
  bool from_override = false;        // kind map: made by an override on the way down, so it may stand for a sequence
  std::vector<ConfigNode> items;     // kind sequence
  std::vector<ConfigEntry> entries;  // kind map, in the order written

  // The value of `key`, or null. Only a map has any.
  [[nodiscard]] const ConfigNode* find(std::string_view key) const;
};

struct ConfigEntry {
  std::string key;
  ConfigOrigin origin;
  ConfigNode value;
};

class ConfigTree {
 public:
  // An empty configuration: every default holds, overrides may be set.
  ConfigTree() = default;
  // `source` names the text in errors. Throws ConfigError naming source and line.
  ConfigTree(std::string_view yaml, const std::string& source);
  // Reads the file. Throws SystemError when it cannot be read, ConfigError as above.
  [[nodiscard]] static ConfigTree load(const std::filesystem::path& path);

  // Applies one override "a.b=value", where value is a YAML scalar or flow sequence. A part of the path that is a
  // number is an index where the file (or, unseen here, the default) has a list: "network.layers.0.units=64". It
  // replaces what the file says; of two for one key the later holds. Errors about the value name "--set a.b=value".
  // Throws ConfigError when the path or the value cannot be understood, and leaves the tree as it was.
  void set(std::string_view assignment);

  [[nodiscard]] const ConfigNode& root() const { return root_; }

 private:
  ConfigNode root_;
};

}  // namespace qanat
