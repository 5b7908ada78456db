// Environments by name: the built-in ones, those of plug-ins, those in Python.
#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <utility>

#include "core/edit_distance.h"
#include "core/error.h"
#include "envs/discrete_actions.h"
#include "envs/games/games.h"
#include "envs/host/launch.h"
#include "envs/host/serve.h"
#include "envs/plugin.h"
#include "envs/vector_env.h"

namespace qanat::envs {
namespace {

using Table = const qanat_env_table& (*)();
constexpr std::array tables = {Table{cartpole_table},       Table{mountain_car_table}, Table{acrobot_table},
                               Table{catch_table},          Table{catch_pixels_table}, Table{asterix_table},
                               Table{breakout_table},       Table{freeway_table},      Table{seaquest_table},
                               Table{space_invaders_table}, Table{deep_sea_table},     Table{memory_chain_table},
                               Table{witness_table}};

// Upper and lower case is what people get wrong most, so it does not count.
std::string lower(std::string_view word) {
  std::string out(word);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

}  // namespace

std::vector<std::string> builtin_ids() {
  std::vector<std::string> ids;
  for (const Table table : tables) ids.emplace_back(table().id);
  std::sort(ids.begin(), ids.end());
  return ids;
}

const qanat_env_table* builtin_table(std::string_view id) {
  for (const Table table : tables) {
    if (id == table().id) return &table();
  }
  return nullptr;
}

namespace {

std::string list_of(const std::vector<std::string>& ids) {
  std::string list;
  for (const std::string& id : ids) list += (list.empty() ? "" : ", ") + id;
  return list;
}

// Precondition: ids is not empty.
std::string nearest(const std::string& wanted, const std::vector<std::string>& ids) {
  const auto distance = [word = lower(wanted)](const std::string& id) { return edit_distance(word, lower(id)).whole; };
  return *std::min_element(ids.begin(), ids.end(),
                           [&](const std::string& a, const std::string& b) { return distance(a) < distance(b); });
}

const qanat_env_table& table_in_plugin(const EnvConfig& config) {
  const auto held = load_plugin(config.plugin);
  if (config.id.empty() && held.size() == 1) return *held.front();
  std::vector<std::string> ids;
  for (const auto* table : held) {
    if (config.id == table->id) return *table;
    ids.emplace_back(table->id);
  }
  if (config.id.empty()) {
    throw ConfigError(
        text("plug-in ", config.plugin, " holds ", held.size(), " environments: name one by env.id: ", list_of(ids)));
  }
  throw ConfigError(text("plug-in ", config.plugin, " has no environment \"", config.id,
                         "\"; nearest: ", nearest(config.id, ids), "; it holds: ", list_of(ids)));
}

const qanat_env_table& named_table(const EnvConfig& config) {
  if (!config.plugin.empty()) return table_in_plugin(config);
  if (const qanat_env_table* table = builtin_table(config.id)) return *table;
  const std::vector<std::string> ids = builtin_ids();
  if (config.id.empty()) {
    throw ConfigError(text("no environment is named: set env.id to one built in (", list_of(ids),
                           "), env.plugin to a shared object, or env.gymnasium to a Gymnasium id"));
  }
  throw ConfigError(text("unknown environment \"", config.id, "\"; nearest: ", nearest(config.id, ids),
                         "; built in: ", list_of(ids)));
}

}  // namespace

EnvHandle open_requested(const host::Request& request, std::size_t slots) {
  const auto value = [&](const char* key) {
    const auto found = request.find(key);
    return found == request.end() ? std::string() : found->second;
  };
  EnvConfig config;
  config.id = value("id");
  config.plugin = value("plugin");
  config.options = value("options");
  config.max_episode_steps = std::strtoll(value("max_episode_steps").c_str(), nullptr, 10);
  return create_env(named_table(config), config, slots);
}

EnvHandle open_env(const EnvConfig& config, std::size_t slots) {
  if (!config.gymnasium.empty()) {
    for (const auto& [key, value] : {std::pair("env.id", config.id), std::pair("env.plugin", config.plugin)}) {
      if (value.empty()) continue;
      throw ConfigError(text("two environments are named, ", key, " ", value, " and env.gymnasium ", config.gymnasium,
                             ": leave one out"));
    }
    return host::open_gymnasium(config, slots);
  }
  const EnvConfig usual;
  for (const auto& [key, set] : {std::pair("env.kwargs", config.kwargs != usual.kwargs),
                                 std::pair("env.channels", config.channels != usual.channels),
                                 std::pair("env.observations", config.observations != usual.observations),
                                 std::pair("env.vectorization", config.vectorization != usual.vectorization)}) {
    if (set)
      throw ConfigError(text(key, " is for env.gymnasium, which names none; C and C++ environments take env.options"));
  }
  // One that is not trusted is not even loaded here.
  if (config.isolate && !config.plugin.empty()) return host::open_isolated(config, slots);
  const qanat_env_table& table = named_table(config);
  return config.isolate ? host::open_isolated(config, slots) : create_env(table, config, slots);
}

EnvHandle open_numbered_env(const EnvConfig& config, std::size_t slots) {
  return with_discrete_actions(open_env(config, slots), config.action_bins, slots);
}

std::unique_ptr<VectorEnv> make(const EnvConfig& config, std::size_t slots) {
  return std::make_unique<VectorEnv>(open_numbered_env(config, slots), slots);
}

}  // namespace qanat::envs
