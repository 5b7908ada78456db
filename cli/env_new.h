// `qanat env new`: a template of a user's own environment, ready to be built, tested and trained.
#pragma once

#include <string>

namespace qanat::cli {

enum class EnvLanguage { cpp, python };

struct EnvNewOptions {
  EnvLanguage language = EnvLanguage::cpp;
  std::string name;       // the environment's, and of its files
  std::string directory;  // empty: ./NAME; made when it is not there
};

// Writes the files and says what comes next. Throws ConfigError, before anything is written, when the name is not a
// lower-case identifier or means something to CMake or Python, when a file of the template is there already, or when
// Qanat's public headers are not where this program was built or installed. Returns 0.
int env_new(const EnvNewOptions& options);

// "MyEnv" for "my_env".
[[nodiscard]] std::string class_name(const std::string& name);
// Throws ConfigError unless `name` can name files, a CMake target, a class and a Python module.
void check_env_name(const std::string& name);

}  // namespace qanat::cli
