#include "cli/env_new.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/env_templates.h"
#include "core/error.h"
#include "core/files.h"

namespace qanat::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t longest_name = 40;

// Targets that CMake keeps for itself, and words and modules that a Python file of the name would hide or be.
constexpr std::array<std::string_view, 58> reserved = {
    "all",       "and",      "as",     "assert", "async",  "await",   "break",   "class",     "clean",  "continue",
    "def",       "del",      "depend", "elif",   "else",   "except",  "finally", "for",       "from",   "global",
    "gymnasium", "help",     "if",     "import", "in",     "install", "is",      "json",      "lambda", "math",
    "mmap",      "nonlocal", "not",    "numpy",  "os",     "or",      "package", "pass",      "pickle", "qanat",
    "raise",     "random",   "return", "select", "signal", "site",    "struct",  "sys",       "test",   "threading",
    "time",      "try",      "types",  "typing", "while",  "with",    "yield",   "edit_cache"};

bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The tree that a build folder was configured from.
fs::path source_of(const fs::path& build) {
  std::ifstream cache(build / "CMakeCache.txt");
  constexpr std::string_view key = "CMAKE_HOME_DIRECTORY:INTERNAL=";
  for (std::string line; std::getline(cache, line);) {
    if (line.starts_with(key)) return line.substr(key.size());
  }
  return {};
}

struct Places {
  fs::path include;  // holds qanat/env.hpp
  fs::path program;  // the directory of this program
};

// Installed or in a bundle, the headers are beside bin/; in a build folder, in the tree it was made from.
Places find_places() {
  const fs::path program = fs::read_symlink("/proc/self/exe").parent_path();
  std::string tried;
  for (const auto& include : {program.parent_path() / "include", source_of(program) / "include"}) {
    if (fs::exists(include / "qanat" / "env.hpp")) return {include, program};
    tried += "\n  " + include.string();
  }
  throw ConfigError("Qanat's public headers (qanat/env.hpp) are not where they should be:" + tried);
}

std::string filled_in(std::string_view text, const std::vector<std::pair<std::string, std::string>>& values) {
  std::string out(text);
  for (const auto& [key, value] : values) {
    const std::string mark = "@" + key + "@";
    for (auto at = out.find(mark); at != std::string::npos; at = out.find(mark, at + value.size())) {
      out.replace(at, mark.size(), value);
    }
  }
  return out;
}

void print_next(const EnvNewOptions& options, const fs::path& directory, const Places& places) {
  const auto dir = directory.string();
  const auto file = [&](const char* ending) { return (directory / (options.name + ending)).string(); };
  std::printf("next, as they stand:\n");
  if (options.language == EnvLanguage::cpp) {
    std::printf("  cmake -S %s -B %s/build && cmake --build %s/build   (or the one g++ command at the top of %s)\n",
                dir.c_str(), dir.c_str(), dir.c_str(), file(".cpp").c_str());
    std::printf("  ctest --test-dir %s/build\n", dir.c_str());
  } else {
    std::printf("  python3 %s\n", file("_test.py").c_str());
    std::printf("  %s env check %s\n", (places.program / "qanat").c_str(), file(".yaml").c_str());
  }
  std::printf("  %s train %s\n", (places.program / "qanat").c_str(), file(".yaml").c_str());
}

}  // namespace

std::string class_name(const std::string& name) {
  std::string out;
  bool upper = true;
  for (const char c : name) {
    if (c != '_') out += upper ? static_cast<char>(std::toupper(static_cast<unsigned char>(c))) : c;
    upper = c == '_';
  }
  return out;
}

void check_env_name(const std::string& name) {
  const auto refuse = [&](const std::string& why) {
    throw ConfigError(text("an environment cannot be called \"", name, "\": ", why));
  };
  if (name.empty() || name.size() > longest_name) refuse(text(name.size(), " characters, wanted 1 to ", longest_name));
  if (!is_lower(name[0])) refuse("it must begin with a letter a to z");
  for (const char c : name) {
    if (!is_lower(c) && !is_digit(c) && c != '_') {
      refuse(text("it holds '", c, "', wanted a to z, 0 to 9 and _, as in my_env"));
    }
  }
  if (name.back() == '_') refuse("it must not end with _");
  if (std::find(reserved.begin(), reserved.end(), name) != reserved.end()) {
    refuse("the word means something to CMake, C++ or Python; another one, as my_env?");
  }
}

int env_new(const EnvNewOptions& options) {
  check_env_name(options.name);
  const fs::path directory = options.directory.empty() ? fs::path(options.name) : fs::path(options.directory);
  const std::string_view language = options.language == EnvLanguage::cpp ? "cpp/" : "python/";
  const auto places = find_places();
  const std::vector<std::pair<std::string, std::string>> values = {{"NAME", options.name},
                                                                   {"CLASS", class_name(options.name)},
                                                                   {"INCLUDE", places.include.string()},
                                                                   {"PROGRAM_DIR", places.program.string()}};
  std::vector<std::pair<fs::path, std::string>> files;
  for (const auto& [name, content] : env_templates) {
    if (!name.starts_with(language)) continue;
    std::string file(name.substr(language.size()));
    if (file.starts_with("NAME")) file.replace(0, 4, options.name);
    files.emplace_back(directory / file, filled_in(content, values));
  }
  for (const auto& [path, content] : files) {
    if (fs::exists(path)) {
      throw ConfigError(text(path.string(), " is there already and is not overwritten; another name, or --dir DIR"));
    }
  }
  make_directories(directory);
  for (const auto& [path, content] : files) {
    write_file_atomically(path, std::string_view(content));
    std::printf("%s\n", path.c_str());
  }
  print_next(options, directory, places);
  return 0;
}

}  // namespace qanat::cli
