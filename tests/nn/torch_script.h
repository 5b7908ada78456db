// What the comparisons with PyTorch share: networks, rows and parameters as JSON, and the call of a script on a file of
// cases.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "nn/network.h"

namespace qanat::nn::test {

inline nlohmann::json network_json(const NetworkSpec& spec) {
  nlohmann::json layers = nlohmann::json::array();
  for (const Layer& layer : spec.layers) {
    const char* names[] = {"linear", "conv2d", "relu", "layer_norm", "lstm"};
    layers.push_back({{"kind", names[static_cast<int>(layer.kind)]}, {"stride", layer.stride}});
  }
  return {{"layers", layers},
          {"stack", spec.stack},
          {"row_shape", spec.input.shape},
          {"input_scale", spec.input_scale},
          {"dueling", spec.dueling},
          {"dueling_hidden", spec.dueling_hidden}};
}

// Rows as numbers.
inline std::vector<float> row_values(const NetworkSpec& spec, const std::vector<std::byte>& rows) {
  std::vector<float> values(rows.size() / size_of(spec.input.dtype));
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (spec.input.dtype == DType::u8) {
      values[i] = static_cast<float>(rows[i]);
    } else {
      std::memcpy(&values[i], &rows[4 * i], 4);
    }
  }
  return values;
}

// Every tensor of the network before and after one update.
inline nlohmann::json parameters_json(const NetworkSpec& spec, const std::vector<float>& online,
                                      const std::vector<float>& target, const std::vector<float>& gradients,
                                      const std::vector<float>& after) {
  nlohmann::json out;
  for (const ParameterInfo& info : parameter_layout(spec)) {
    const auto cut = [&](const std::vector<float>& all) {
      const auto first = all.begin() + static_cast<std::ptrdiff_t>(info.offset);
      return std::vector<float>(first, first + static_cast<std::ptrdiff_t>(info.elements()));
    };
    out.push_back({{"name", info.name},
                   {"shape", info.shape},
                   {"online", cut(online)},
                   {"target", cut(target)},
                   {"gradient", cut(gradients)},
                   {"after", cut(after)}});
  }
  return out;
}

// The exit status of tests/nn/SCRIPT for these cases: 0 where all agree, 3 where one does not.
constexpr int disagrees = 3;
inline int run_script(const char* python, const std::string& script, const nlohmann::json& cases) {
  const auto path = std::filesystem::temp_directory_path() / ("qanat_" + script + "_" + std::to_string(getpid()));
  std::ofstream(path) << cases;
  const char* elsewhere = std::getenv("QANAT_NN_TEST_DIR");  // where the sources are not
  const std::string directory = elsewhere != nullptr ? elsewhere : QANAT_NN_TEST_DIR;
  const std::string command = std::string(python) + " " + directory + "/" + script + " " + path.string();
  const int status = std::system(command.c_str());
  std::filesystem::remove(path);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace qanat::nn::test
