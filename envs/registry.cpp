// The built-in environments by name.
#include <algorithm>
#include <array>
#include <cctype>

#include "core/edit_distance.h"
#include "core/error.h"
#include "envs/games/games.h"
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

std::unique_ptr<VectorEnv> make(const EnvConfig& config, std::size_t slots) {
  if (const qanat_env_table* table = builtin_table(config.id))
    return std::make_unique<VectorEnv>(*table, config, slots);
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

}  // namespace qanat::envs
