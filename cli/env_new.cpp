#include "cli/env_new.h"

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

// Targets that CMake keeps for itself, words of Python, and the modules that the Python host, numpy and Gymnasium
// import: a file of the name would be taken for them. Spaces around each.
constexpr std::string_view reserved =
    " abc all and array as assert ast async atexit await base64 binascii bisect break builtins bz2 class clean "
    "codecs collections contextlib contextvars continue copy copyreg ctypes dataclasses datetime def del depend "
    "difflib dis edit_cache elif else encodings enum errno except fcntl finally fnmatch for from functools gc "
    "genericpath global gymnasium hashlib heapq help hmac if import importlib in inspect install io ipaddress is "
    "itertools json keyword lambda linecache locale lzma marshal math mmap multiprocessing nonlocal not ntpath "
    "numbers numpy opcode operator or os package pass pathlib pickle posix posixpath qanat raise random re "
    "reprlib return secrets select selectors shutil signal site socket stat struct subprocess sys tempfile test "
    "textwrap threading time token tokenize traceback try types typing urllib warnings weakref while with yield "
    "zipimport zlib ";

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

// As a shell reads it back.
std::string quoted(const std::string& path) {
  constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./+@%:,";
  if (path.find_first_not_of(plain) == std::string::npos) return path;
  std::string out = "'";
  for (const char c : path) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

void print_next(const EnvNewOptions& options, const fs::path& directory, const Places& places) {
  const auto dir = quoted(directory.string());
  const auto program = quoted((places.program / "qanat").string());
  const auto file = [&](const char* ending) { return quoted((directory / (options.name + ending)).string()); };
  std::printf("next, as they stand:\n");
  if (options.language == EnvLanguage::cpp) {
    const auto build = quoted((directory / "build").string());
    std::printf("  cmake -S %s -B %s && cmake --build %s   (or the one g++ command at the top of %s)\n", dir.c_str(),
                build.c_str(), build.c_str(), file(".cpp").c_str());
    std::printf("  ctest --test-dir %s\n", build.c_str());
  } else {
    std::printf("  python3 %s\n", file("_test.py").c_str());
    std::printf("  %s env check %s\n", program.c_str(), file(".yaml").c_str());
  }
  std::printf("  %s train %s\n", program.c_str(), file(".yaml").c_str());
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
  if (reserved.find(' ' + name + ' ') != std::string_view::npos) {
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
