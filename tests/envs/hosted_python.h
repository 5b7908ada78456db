// What tests of Python environments share: the interpreter, the scripted module, who recorded what.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "envs/vector_env.h"
#include "tests/support/catch.h"

namespace qanat::envs {

// The tests' own server stands for qanat where hosted environments start it.
inline const bool program_is_named = setenv("QANAT_PROGRAM", QANAT_TEST_SERVER, 1) == 0;

// The Python that has gymnasium; nullptr (with a warning) where there is none.
inline const char* test_python() {
  const char* python = std::getenv("QANAT_TEST_PYTHON");
  if (python == nullptr || *python == '\0') {
    WARN("skipped: QANAT_TEST_PYTHON names no Python with gymnasium");
    return nullptr;
  }
  return python;
}

// tests/envs/host/scripted.py, with arguments as JSON.
inline EnvConfig scripted(const std::string& id, const std::string& kwargs = "{}") {
  setenv("PYTHONPATH", QANAT_TEST_FOLDER "/host", 1);
  EnvConfig config;
  config.gymnasium = "scripted:" + id;
  config.python = std::getenv("QANAT_TEST_PYTHON");
  config.kwargs = kwargs;
  return config;
}

// A file name that is free, removed at the end.
class Once {
 public:
  Once()
      : path_(std::filesystem::temp_directory_path() /
              ("qanat-once-" + std::to_string(getpid()) + "-" + std::to_string(count_++))) {}
  ~Once() { std::filesystem::remove(path_); }
  [[nodiscard]] std::string text() const { return path_.string(); }

 private:
  static inline int count_ = 0;
  std::filesystem::path path_;
};

}  // namespace qanat::envs
