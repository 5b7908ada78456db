// The built-in environments by name.
#include <algorithm>
#include <array>
#include <cctype>
#include <numeric>

#include "core/error.h"
#include "envs/games/games.h"
#include "envs/vector_env.h"

namespace qanat::envs {
namespace {

using Table = const qanat_env_table& (*)();
constexpr std::array<Table, 7> tables = {cartpole_table,     mountain_car_table, acrobot_table, catch_table,
                                         catch_pixels_table, breakout_table,     witness_table};

// Levenshtein's distance, ignoring case, which is what people get wrong most.
std::size_t distance(std::string_view a, std::string_view b) {
  const auto same = [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y));
  };
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (same(a[i], b[j]) ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
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
  const auto nearest = std::min_element(ids.begin(), ids.end(), [&](const std::string& a, const std::string& b) {
    return distance(a, config.id) < distance(b, config.id);
  });
  std::string list;
  for (const std::string& id : ids) list += (list.empty() ? "" : ", ") + id;
  throw ConfigError(text("unknown environment \"", config.id, "\"; nearest: ", *nearest, "; built in: ", list));
}

}  // namespace qanat::envs
