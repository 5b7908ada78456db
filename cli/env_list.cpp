#include "cli/env_list.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <sstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "envs/vector_env.h"

namespace qanat::cli {
namespace {

using envs::ActionSpace;

std::string observations_of(const envs::EnvSpec& spec) {
  std::string out;
  for (const auto& observation : spec.observations) {
    out += (out.empty() ? "" : ", ") + observation.tensor.describe();
  }
  return out;
}

std::string actions_of(const ActionSpace& action) {
  if (action.kind == ActionSpace::Kind::discrete) return std::to_string(action.n);
  if (action.kind == ActionSpace::Kind::box) return text("box of ", action.dims());
  std::string out;
  for (const std::int64_t n : action.nvec) out += (out.empty() ? "" : " x ") + std::to_string(n);
  return out;
}

void print_options(const std::string& id) {
  const qanat_env_table* table = envs::builtin_table(id);
  if (table == nullptr || table->options_help == nullptr) return;
  std::istringstream help(table->options_help);
  for (std::string option; std::getline(help, option);) std::printf("    %s\n", option.c_str());
}

}  // namespace

void print_environments(bool options) {
  using Line = std::array<std::string, 5>;
  std::vector<Line> lines = {{"id", "observations", "actions", "steps at most", "what it is"}};
  for (const std::string& id : envs::builtin_ids()) {
    const envs::EnvSpec spec = envs::make({.id = id}, 1)->spec();
    const char* summary = envs::builtin_table(id)->summary;
    lines.push_back({id, observations_of(spec), actions_of(spec.action),
                     spec.max_episode_steps > 0 ? std::to_string(spec.max_episode_steps) : "no limit",
                     summary != nullptr ? summary : ""});
  }
  std::array<std::size_t, 4> widths{};  // the last column needs none
  for (const Line& line : lines) {
    for (std::size_t i = 0; i < widths.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  for (const Line& line : lines) {
    std::string out;
    for (std::size_t i = 0; i < widths.size(); ++i) out += line[i] + std::string(widths[i] + 2 - line[i].size(), ' ');
    std::puts((out + line.back()).c_str());
    if (options) print_options(line.front());
  }
}

}  // namespace qanat::cli
