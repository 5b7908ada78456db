#include "envs/abi.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>

#include "core/error.h"

namespace qanat::envs {
namespace {

static_assert(static_cast<int>(DType::u8) == QANAT_ENV_U8 && static_cast<int>(DType::i32) == QANAT_ENV_I32 &&
              static_cast<int>(DType::i64) == QANAT_ENV_I64 && static_cast<int>(DType::f32) == QANAT_ENV_F32 &&
              static_cast<int>(DType::f64) == QANAT_ENV_F64);

constexpr std::size_t max_row_bytes = std::size_t{1} << 30;
constexpr std::size_t max_action_dims = 4096;
constexpr std::size_t max_metrics = 1024;

// Collects the environment's name for every message.
class Reader {
 public:
  explicit Reader(std::string id) : id_(std::move(id)) {}

  template <class... Parts>
  void require(bool holds, const Parts&... parts) const {
    if (!holds) throw InputError(text("environment ", id_, ": its spec is broken: ", parts...));
  }

  ObservationSpec observation(const qanat_env_tensor& tensor, std::size_t index) const {
    ObservationSpec result;
    require(tensor.name != nullptr && tensor.name[0] != '\0', "observation ", index, " has no name");
    result.tensor.name = tensor.name;
    require(tensor.dtype <= QANAT_ENV_F64, "observation ", tensor.name, " has dtype number ", tensor.dtype,
            ", 0 to 4 wanted");
    result.tensor.dtype = static_cast<DType>(tensor.dtype);
    require(tensor.rank <= 8 && (tensor.rank == 0 || tensor.shape != nullptr), "observation ", tensor.name,
            " has rank ", tensor.rank, ", at most 8 and a shape wanted");
    std::size_t bytes = size_of(result.tensor.dtype);
    for (std::uint32_t d = 0; d < tensor.rank; ++d) {
      const std::int64_t extent = tensor.shape[d];
      require(extent > 0 && static_cast<std::size_t>(extent) <= max_row_bytes / bytes, "observation ", tensor.name,
              " has extent ", extent, " in dimension ", d, "; positive and at most 1 GiB in all wanted");
      bytes *= static_cast<std::size_t>(extent);
      result.tensor.shape.push_back(extent);
    }
    require(tensor.low <= tensor.high, "observation ", tensor.name, " has bounds [", tensor.low, ", ", tensor.high,
            "]");
    result.low = tensor.low;
    result.high = tensor.high;
    return result;
  }

  ActionSpace action(const qanat_env_spec& spec) const {
    ActionSpace action;
    require(spec.action_kind <= QANAT_ENV_BOX, "action kind ", spec.action_kind, ", 0 to 2 wanted");
    action.kind = static_cast<ActionSpace::Kind>(spec.action_kind);
    if (action.kind == ActionSpace::Kind::discrete) {
      require(spec.action_n >= 1 && spec.action_n <= std::numeric_limits<std::int32_t>::max(), "number of actions ",
              spec.action_n);
      action.n = spec.action_n;
      return action;
    }
    require(spec.action_dims >= 1 && spec.action_dims <= max_action_dims, "numbers in an action ", spec.action_dims);
    if (action.kind == ActionSpace::Kind::multi_discrete) {
      require(spec.action_nvec != nullptr, "action_nvec is missing");
      action.nvec.assign(spec.action_nvec, spec.action_nvec + spec.action_dims);
      for (const std::int64_t n : action.nvec) {
        require(n >= 1 && n <= std::numeric_limits<std::int32_t>::max(), "number of actions ", n);
      }
    } else {
      require(spec.action_low != nullptr && spec.action_high != nullptr, "action bounds are missing");
      action.low.assign(spec.action_low, spec.action_low + spec.action_dims);
      action.high.assign(spec.action_high, spec.action_high + spec.action_dims);
      for (std::size_t d = 0; d < action.low.size(); ++d) {
        require(std::isfinite(action.low[d]) && std::isfinite(action.high[d]) && action.low[d] < action.high[d],
                "action bounds [", action.low[d], ", ", action.high[d], "] of number ", d);
      }
    }
    return action;
  }

 private:
  std::string id_;
};

}  // namespace

qanat_env_table read_table(const qanat_env_table& table) {
  // Version and size stand first and are readable in every version.
  if (table.abi_version != QANAT_ENV_ABI_VERSION) {
    throw InputError(text("environment plug-in: built for version ", table.abi_version,
                          " of the environment interface, this program has ", QANAT_ENV_ABI_VERSION));
  }
  // What came later than the first version of the table may be missing.
  constexpr std::size_t first_size = offsetof(qanat_env_table, summary);
  if (table.struct_size < first_size) {
    throw InputError(
        text("environment plug-in: its table has ", table.struct_size, " bytes, at least ", first_size, " wanted"));
  }
  qanat_env_table copy{};
  std::memcpy(&copy, &table, std::min<std::size_t>(table.struct_size, sizeof copy));
  if (copy.id == nullptr || copy.id[0] == '\0') throw InputError("environment plug-in: its table has no id");
  const auto require = [&](bool present, const char* name) {
    if (!present) throw InputError(text("environment ", copy.id, ": function ", name, " is missing in its table"));
  };
  require(copy.create != nullptr, "create");
  require(copy.destroy != nullptr, "destroy");
  require(copy.spec != nullptr, "spec");
  require(copy.reset != nullptr, "reset");
  require(copy.step != nullptr, "step");
  return copy;
}

EnvSpec read_spec(const qanat_env_table& table, const qanat_env_spec* given) {
  const Reader reader(table.id);
  reader.require(given != nullptr && given->struct_size >= sizeof(qanat_env_spec), "missing or too small");
  const qanat_env_spec& spec = *given;
  EnvSpec result;
  result.id = table.id;
  reader.require(spec.observation_count >= 1 && spec.observation_count <= QANAT_ENV_MAX_OBSERVATIONS,
                 spec.observation_count, " observations, 1 to 8 wanted");
  reader.require(spec.observations != nullptr && spec.tensor_size >= sizeof(qanat_env_tensor), "observations missing");
  for (std::uint32_t i = 0; i < spec.observation_count; ++i) {
    qanat_env_tensor tensor{};
    std::memcpy(&tensor, reinterpret_cast<const std::byte*>(spec.observations) + std::size_t{i} * spec.tensor_size,
                sizeof tensor);
    result.observations.push_back(reader.observation(tensor, i));
    for (std::uint32_t other = 0; other < i; ++other) {
      reader.require(result.observations[other].tensor.name != result.observations[i].tensor.name,
                     "two observations are called ", tensor.name);
    }
  }
  result.action = reader.action(spec);
  result.has_action_mask = spec.has_action_mask != 0;
  reader.require(!result.has_action_mask || result.action.kind != ActionSpace::Kind::box,
                 "an action mask with box actions");
  reader.require(spec.max_episode_steps >= 0, "max_episode_steps ", spec.max_episode_steps);
  result.max_episode_steps = spec.max_episode_steps;
  reader.require(spec.metric_count <= max_metrics && (spec.metric_count == 0 || spec.metrics != nullptr),
                 spec.metric_count, " metrics");
  for (std::uint32_t i = 0; i < spec.metric_count; ++i) {
    reader.require(spec.metrics[i] != nullptr && spec.metrics[i][0] != '\0', "metric ", i, " has no name");
    result.metrics.emplace_back(spec.metrics[i]);
  }
  result.can_snapshot = spec.can_snapshot != 0 && table.snapshot != nullptr && table.restore != nullptr;
  result.can_render = spec.can_render != 0 && table.render != nullptr;
  return result;
}

}  // namespace qanat::envs
