// The built-in environments by name.
#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>

#include "core/edit_distance.h"
#include "core/error.h"
#include "envs/discrete_actions.h"
#include "envs/games/games.h"
#include "envs/host/launch.h"
#include "envs/host/serve.h"
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

const qanat_env_table& named_table(const EnvConfig& config) {
  if (const qanat_env_table* table = builtin_table(config.id)) return *table;
  const std::vector<std::string> ids = builtin_ids();
  const auto distance = [word = lower(config.id)](const std::string& id) {
    return edit_distance(word, lower(id)).whole;
  };
  const auto nearest = std::min_element(
      ids.begin(), ids.end(), [&](const std::string& a, const std::string& b) { return distance(a) < distance(b); });
  std::string list;
  for (const std::string& id : ids) list += (list.empty() ? "" : ", ") + id;
  throw ConfigError(text("unknown environment \"", config.id, "\"; nearest: ", *nearest, "; built in: ", list));
}

EnvHandle open_env(const EnvConfig& config, std::size_t slots) {
  if (!config.gymnasium.empty()) {
    if (config.id != EnvConfig{}.id) {
      throw ConfigError(text("two environments are named, env.id ", config.id, " and env.gymnasium ", config.gymnasium,
                             ": leave one out"));
    }
    return host::open_gymnasium(config, slots);
  }
  const qanat_env_table& table = named_table(config);
  return config.isolate ? host::open_isolated(config, slots) : create_env(table, config, slots);
}

}  // namespace

EnvHandle open_requested(const host::Request& request, std::size_t slots) {
  const auto value = [&](const char* key) {
    const auto found = request.find(key);
    return found == request.end() ? std::string() : found->second;
  };
  EnvConfig config;
  config.id = value("id");
  config.options = value("options");
  config.max_episode_steps = std::strtoll(value("max_episode_steps").c_str(), nullptr, 10);
  return create_env(named_table(config), config, slots);
}

std::unique_ptr<VectorEnv> make(const EnvConfig& config, std::size_t slots) {
  return std::make_unique<VectorEnv>(with_discrete_actions(open_env(config, slots), config.action_bins, slots), slots);
}

}  // namespace qanat::envs
