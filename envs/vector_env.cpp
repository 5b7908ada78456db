#include "envs/vector_env.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <limits>
#include <utility>

#include "core/error.h"
#include "envs/abi.h"

namespace qanat::envs {
namespace {

qanat_env_error empty_error() {
  qanat_env_error error{};
  error.struct_size = sizeof error;
  error.slot = -1;
  return error;
}

// Whether no number is NaN or infinite: all exponent bits set. Written without branches so that it vectorises.
bool all_finite(std::span<const float> values) {
  std::uint32_t broken = 0;
  for (const float value : values) broken |= (std::bit_cast<std::uint32_t>(value) & 0x7f800000u) == 0x7f800000u;
  return broken == 0;
}

bool all_finite(std::span<const double> values) {
  constexpr std::uint64_t exponent = 0x7ff0000000000000u;
  std::uint64_t broken = 0;
  for (const double value : values) broken |= (std::bit_cast<std::uint64_t>(value) & exponent) == exponent;
  return broken == 0;
}

template <class T>
std::span<const T> as(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
}

bool all_finite(DType dtype, std::span<const std::byte> bytes) {
  if (dtype == DType::f32) return all_finite(as<float>(bytes));
  if (dtype == DType::f64) return all_finite(as<double>(bytes));
  return true;
}

// Calls into the environment. No exception may cross the C interface, but one that does is an error like any other.
template <class Call>
bool succeeds(qanat_env_error& error, Call&& call) {
  const auto say = [&](const char* what) {
    std::snprintf(error.message, sizeof error.message, "an exception crossed the C interface: %s", what);
    return false;
  };
  try {
    return call(&error) == QANAT_ENV_OK;
  } catch (const std::exception& thrown) {
    return say(thrown.what());
  } catch (...) {
    return say("not a std::exception");
  }
}

// What this class adds to an environment's own snapshot.
struct SnapshotHead {
  static constexpr std::uint64_t right_magic = 0x31766e6574616e71;  // "qanatev1" in memory
  std::uint64_t magic = right_magic;
  std::uint64_t seed = 0;
  double episode_return = 0;
  std::int64_t episode_length = 0;
};

}  // namespace

std::size_t ActionSpace::dims() const {
  if (kind == Kind::discrete) return 1;
  return kind == Kind::box ? low.size() : nvec.size();
}

std::size_t ActionSpace::choices() const {
  if (kind == Kind::discrete) return static_cast<std::size_t>(n);
  std::int64_t sum = 0;
  for (const std::int64_t count : nvec) sum += count;
  return static_cast<std::size_t>(sum);
}

EnvHandle create_env(const qanat_env_table& given, const EnvConfig& config, std::size_t slots) {
  const qanat_env_table table = read_table(given);
  if (slots == 0) throw ConfigError(text("environment ", table.id, ": at least one slot wanted"));
  qanat_env_config create{};
  create.struct_size = sizeof create;
  create.slots = slots;
  create.options = config.options.c_str();
  create.max_episode_steps = config.max_episode_steps;
  qanat_env_error error = empty_error();
  qanat_env* env = nullptr;
  if (!succeeds(error, [&](auto* e) { return table.create(&create, &env, e); })) {
    error.message[sizeof error.message - 1] = '\0';
    throw ConfigError(text("environment ", table.id, " with options \"", config.options, "\": ", error.message));
  }
  if (env == nullptr) throw InputError(text("environment ", table.id, ": its create() succeeded and made none"));
  return {table, env};
}

VectorEnv::VectorEnv(const qanat_env_table& table, const EnvConfig& config, std::size_t slots)
    : VectorEnv(create_env(table, config, slots), slots) {}

VectorEnv::VectorEnv(EnvHandle env, std::size_t slots)
    : env_(std::move(env)), spec_(read_spec(env_.table(), env_.table().spec(env_.get()))), slots_(slots) {
  allocate();
}

VectorEnv::~VectorEnv() = default;

void VectorEnv::allocate() {
  buffers_.struct_size = sizeof buffers_;
  columns_.resize(spec_.observations.size());
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    Column& column = columns_[i];
    column.row_bytes = spec_.observations[i].tensor.bytes();
    column.current.resize(slots_ * column.row_bytes);
    column.final.resize(slots_ * column.row_bytes);
    buffers_.observations[i] = column.current.data();
    buffers_.final_observations[i] = column.final.data();
  }
  rewards_.resize(slots_);
  terminated_.resize(slots_);
  truncated_.resize(slots_);
  resetting_.resize(slots_);
  stepped_.resize(slots_, 1);
  buffers_.resetting = resetting_.data();
  if (spec_.has_action_mask) {
    mask_.resize(slots_ * spec_.action.choices());
    final_mask_.resize(mask_.size());
    buffers_.action_mask = mask_.data();
    buffers_.final_action_mask = final_mask_.data();
  }
  metrics_.resize(slots_ * spec_.metrics.size());
  if (!metrics_.empty()) buffers_.metrics = metrics_.data();
  buffers_.rewards = rewards_.data();
  buffers_.terminated = terminated_.data();
  buffers_.truncated = truncated_.data();
  returns_.resize(slots_);
  ended_returns_.resize(slots_);
  lengths_.resize(slots_);
  ended_lengths_.resize(slots_);
  seeds_.resize(slots_);
}

void VectorEnv::reset(std::span<const std::uint64_t> seeds) {
  if (seeds.size() != slots_) {
    throw InputError(text("environment ", spec_.id, ": ", seeds.size(), " seeds for ", slots_, " slots"));
  }
  started_ = false;
  std::copy(seeds.begin(), seeds.end(), seeds_.begin());
  for (std::size_t slot = 0; slot < slots_; ++slot) clear_results(slot);
  std::fill(resetting_.begin(), resetting_.end(), std::uint8_t{0});
  qanat_env_error error = empty_error();
  if (!succeeds(error, [&](auto* e) { return env_.table().reset(env_.get(), seeds_.data(), nullptr, &buffers_, e); })) {
    fail("reset", error);
  }
  check_finite_observations();
  started_ = true;
}

void VectorEnv::reset_slots(std::span<const std::uint32_t> slots, std::span<const std::uint64_t> seeds) {
  if (seeds.size() != slots.size()) {
    throw InputError(text("environment ", spec_.id, ": ", seeds.size(), " seeds for ", slots.size(), " slots"));
  }
  for (const auto slot : slots) require_slot(slot);
  require_started();
  started_ = false;
  std::vector<std::uint8_t> which(slots_);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    seeds_[slots[i]] = seeds[i];
    clear_results(slots[i]);
    which[slots[i]] = 1;
  }
  qanat_env_error error = empty_error();
  if (!succeeds(error,
                [&](auto* e) { return env_.table().reset(env_.get(), seeds_.data(), which.data(), &buffers_, e); })) {
    fail("reset", error);
  }
  check_finite_observations();
  started_ = true;
}

void VectorEnv::clear_results(std::size_t slot) {
  rewards_[slot] = 0;
  terminated_[slot] = truncated_[slot] = 0;
  returns_[slot] = 0;
  lengths_[slot] = 0;
  resetting_[slot] = 0;
  stepped_[slot] = 1;
}

void VectorEnv::step(std::span<const std::int32_t> actions) {
  const ActionSpace& space = spec_.action;
  if (space.kind == ActionSpace::Kind::box) {
    throw InputError(text("environment ", spec_.id, ": whole-number actions for a box action space"));
  }
  const std::size_t dims = space.dims();
  if (actions.size() != slots_ * dims) {
    throw InputError(
        text("environment ", spec_.id, ": ", actions.size(), " numbers of actions for ", slots_, " slots of ", dims));
  }
  const auto limit = [&](std::size_t d) { return space.kind == ActionSpace::Kind::discrete ? space.n : space.nvec[d]; };
  for (std::size_t d = 0; d < dims; ++d) {
    const auto n = static_cast<std::uint32_t>(limit(d));
    bool broken = false;  // negative actions are above any n when read as unsigned
    for (std::size_t i = d; i < actions.size(); i += dims) broken |= static_cast<std::uint32_t>(actions[i]) >= n;
    if (!broken) continue;
    for (std::size_t slot = 0; slot < slots_; ++slot) {
      const std::int32_t action = actions[slot * dims + d];
      if (action >= 0 && action < limit(d)) continue;
      throw InputError(text("environment ", spec_.id, ", slot ", slot, ", step ", lengths_[slot] + 1,
                            " of its episode: action ", action, dims > 1 ? text(" (number ", d, ")") : "",
                            " is out of range, 0 to ", limit(d) - 1, " wanted"));
    }
  }
  step_raw(actions.data());
}

void VectorEnv::step(std::span<const float> actions) {
  const ActionSpace& space = spec_.action;
  if (space.kind != ActionSpace::Kind::box) {
    throw InputError(text("environment ", spec_.id, ": real actions for a discrete action space"));
  }
  const std::size_t dims = space.dims();
  if (actions.size() != slots_ * dims) {
    throw InputError(
        text("environment ", spec_.id, ": ", actions.size(), " numbers of actions for ", slots_, " slots of ", dims));
  }
  for (std::size_t i = 0; i < actions.size(); ++i) {
    const std::size_t d = i % dims;
    if (actions[i] >= space.low[d] && actions[i] <= space.high[d]) continue;  // NaN fails both
    throw InputError(text("environment ", spec_.id, ", slot ", i / dims, ", step ", lengths_[i / dims] + 1,
                          " of its episode: action ", actions[i], " (number ", d, ") is out of range, ", space.low[d],
                          " to ", space.high[d], " wanted"));
  }
  step_raw(actions.data());
}

void VectorEnv::step_raw(const void* actions) {
  require_started();
  started_ = false;
  actions_ = actions;
  for (std::size_t slot = 0; slot < slots_; ++slot) stepped_[slot] = resetting_[slot] == 0 ? 1 : 0;
  std::fill(resetting_.begin(), resetting_.end(), std::uint8_t{0});
  qanat_env_error error = empty_error();
  if (!succeeds(error, [&](auto* e) { return env_.table().step(env_.get(), actions, &buffers_, e); }))
    fail("step", error);
  check_results();
  actions_ = nullptr;
  count_episodes();
  started_ = true;
}

void VectorEnv::count_episodes() {
  for (std::size_t slot = 0; slot < slots_; ++slot) {
    if (stepped_[slot] == 0) continue;
    returns_[slot] += static_cast<double>(rewards_[slot]);
    ++lengths_[slot];
    if ((terminated_[slot] | truncated_[slot]) == 0) continue;
    ended_returns_[slot] = returns_[slot];
    ended_lengths_[slot] = lengths_[slot];
    returns_[slot] = 0;
    lengths_[slot] = 0;
  }
}

void VectorEnv::check_results() const {
  if (!all_finite(rewards_)) {
    const auto bad = std::find_if(rewards_.begin(), rewards_.end(), [](float r) { return !std::isfinite(r); });
    throw RunError(text(where(bad - rewards_.begin()), ": the reward is ", *bad));
  }
  check_finite_observations();
  check_resetting();
}

// A step that only begins an episode pays nothing and ends nothing; only one that ended an episode may call for one.
void VectorEnv::check_resetting() const {
  for (std::size_t slot = 0; slot < slots_; ++slot) {
    const bool ended = (terminated_[slot] | truncated_[slot]) != 0;
    if (stepped_[slot] == 0 && (ended || rewards_[slot] != 0)) {
      throw RunError(text(where(static_cast<std::int64_t>(slot)), ": the step that begins an episode gave reward ",
                          rewards_[slot], ", terminated ", int{terminated_[slot]}, ", truncated ",
                          int{truncated_[slot]}, "; 0 wanted in each"));
    }
    if (resetting_[slot] != 0 && !ended) {
      throw RunError(text(where(static_cast<std::int64_t>(slot)), ": it wants a reset, but no episode has ended"));
    }
  }
}

void VectorEnv::check_finite_observations() const {
  const auto refuse = [&](std::size_t i, std::size_t slot, const char* kind, std::span<const std::byte> row) {
    const DType dtype = spec_.observations[i].tensor.dtype;
    std::size_t at = 0;
    while (all_finite(dtype, row.subspan(at * size_of(dtype), size_of(dtype)))) ++at;
    throw RunError(text(where(static_cast<std::int64_t>(slot)), ": the ", kind, "observation ",
                        spec_.observations[i].tensor.name, " holds a number that is not finite, the first at index ",
                        at, " of ", spec_.observations[i].tensor.elements()));
  };
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    const DType dtype = spec_.observations[i].tensor.dtype;
    if (dtype != DType::f32 && dtype != DType::f64) continue;
    const Column& column = columns_[i];
    const auto row = [&](const std::vector<std::byte>& bytes, std::size_t slot) {
      return std::span(bytes).subspan(slot * column.row_bytes, column.row_bytes);
    };
    const bool finite = all_finite(dtype, column.current);
    for (std::size_t slot = 0; slot < slots_; ++slot) {
      if (!finite && !all_finite(dtype, row(column.current, slot))) {
        refuse(i, slot, "", row(column.current, slot));
      }
      const bool ended = (terminated_[slot] | truncated_[slot]) != 0;
      if (ended && !all_finite(dtype, row(column.final, slot))) {
        refuse(i, slot, "final ", row(column.final, slot));
      }
    }
  }
}

std::span<const std::byte> VectorEnv::observation(std::size_t column) const {
  assert(column < columns_.size());
  return columns_[column].current;
}

std::span<const std::byte> VectorEnv::final_observation(std::size_t column) const {
  assert(column < columns_.size());
  return columns_[column].final;
}

std::span<const double> VectorEnv::episode_metrics(std::size_t slot) const {
  assert(slot < slots_);
  return std::span(metrics_).subspan(slot * spec_.metrics.size(), spec_.metrics.size());
}

std::vector<std::string> VectorEnv::take_events() {
  if (!env_.events) return {};
  auto events = std::exchange(env_.events->lines, {});
  const auto notes = std::exchange(env_.events->notes, {});
  events.insert(events.end(), notes.begin(), notes.end());
  return events;
}

void VectorEnv::while_waiting(std::function<void()> call) {
  if (env_.events) env_.events->while_waiting = std::move(call);
}

std::vector<std::byte> VectorEnv::snapshot(std::size_t slot) const {
  require_slot(slot);
  require_started();
  if (!spec_.can_snapshot) throw RunError(text("environment ", spec_.id, " cannot be snapshot"));
  std::size_t size = 0;
  qanat_env_error error = empty_error();
  const auto take = [&](void* out, std::size_t capacity, std::size_t* needed) {
    if (!succeeds(error, [&](auto* e) { return env_.table().snapshot(env_.get(), slot, out, capacity, needed, e); })) {
      fail("snapshot", error);
    }
  };
  take(nullptr, 0, &size);
  SnapshotHead head;
  head.seed = seeds_[slot];
  head.episode_return = returns_[slot];
  head.episode_length = lengths_[slot];
  std::vector<std::byte> bytes(sizeof head + size);
  std::memcpy(bytes.data(), &head, sizeof head);
  std::size_t written = 0;
  take(bytes.data() + sizeof head, size, &written);
  if (written != size) throw RunError(text("environment ", spec_.id, ": its snapshot changed size while being taken"));
  return bytes;
}

void VectorEnv::restore(std::size_t slot, std::span<const std::byte> bytes) {
  require_slot(slot);
  require_started();
  if (!spec_.can_snapshot) throw RunError(text("environment ", spec_.id, " cannot be restored from a snapshot"));
  SnapshotHead head;
  const auto refuse = [&](const char* what) {
    throw InputError(text("environment ", spec_.id, ", slot ", slot, ": not a snapshot: ", what));
  };
  if (bytes.size() < sizeof head) refuse("too short");
  std::memcpy(&head, bytes.data(), sizeof head);
  if (head.magic != SnapshotHead::right_magic) refuse("wrong first bytes");
  if (head.episode_length < 0 || !std::isfinite(head.episode_return)) refuse("impossible episode counts");
  qanat_env_error error = empty_error();
  const auto rest = bytes.subspan(sizeof head);
  if (!succeeds(error, [&](auto* e) {
        return env_.table().restore(env_.get(), slot, rest.data(), rest.size(), &buffers_, e);
      })) {
    started_ = false;
    error.message[sizeof error.message - 1] = '\0';
    refuse(error.message);
  }
  clear_results(slot);
  seeds_[slot] = head.seed;
  returns_[slot] = head.episode_return;
  lengths_[slot] = head.episode_length;
}

std::vector<std::uint8_t> VectorEnv::render(std::size_t slot, int& height, int& width) const {
  require_slot(slot);
  require_started();
  if (!spec_.can_render) throw RunError(text("environment ", spec_.id, " cannot be rendered"));
  std::int32_t h = 0;
  std::int32_t w = 0;
  qanat_env_error error = empty_error();
  const auto draw = [&](std::uint8_t* out, std::size_t capacity) {
    if (!succeeds(error, [&](auto* e) { return env_.table().render(env_.get(), slot, out, capacity, &h, &w, e); })) {
      fail("render", error);
    }
  };
  draw(nullptr, 0);
  constexpr std::int32_t largest = 8192;
  if (h < 1 || w < 1 || h > largest || w > largest) {
    throw RunError(text("environment ", spec_.id, ": a picture of ", h, " x ", w));
  }
  std::vector<std::uint8_t> picture(3 * static_cast<std::size_t>(h) * static_cast<std::size_t>(w));
  height = h;
  width = w;
  draw(picture.data(), picture.size());
  if (h != height || w != width) throw RunError(text("environment ", spec_.id, ": its picture changed size"));
  return picture;
}

void VectorEnv::require_slot(std::size_t slot) const {
  if (slot >= slots_) throw InputError(text("environment ", spec_.id, ": slot ", slot, " of ", slots_));
}

void VectorEnv::require_started() const {
  if (!started_) {
    throw RunError(text("environment ", spec_.id, ": only reset() is allowed before the first one and after an error"));
  }
}

void VectorEnv::fail(const char* doing, const qanat_env_error& error) const {
  const std::string message(error.message, strnlen(error.message, sizeof error.message));
  const std::string words = text(where(error.slot), ": ", doing, " failed: ", message);
  if (env_.events && env_.events->given_up) throw EnvironmentGivenUp(words);
  throw RunError(words);
}

std::string VectorEnv::where(std::int64_t slot) const {
  if (slot < 0 || static_cast<std::size_t>(slot) >= slots_) return text("environment ", spec_.id);
  const auto s = static_cast<std::size_t>(slot);
  std::string place = text("environment ", spec_.id, ", slot ", s, " (seed ", seeds_[s], ")");
  if (actions_ == nullptr) return place;
  place += text(", step ", lengths_[s] + 1, " of its episode, action");
  const std::size_t dims = spec_.action.dims();
  for (std::size_t d = 0; d < dims; ++d) {
    const std::size_t at = s * dims + d;
    place += spec_.action.kind == ActionSpace::Kind::box ? text(" ", static_cast<const float*>(actions_)[at])
                                                         : text(" ", static_cast<const std::int32_t*>(actions_)[at]);
  }
  return place;
}

}  // namespace qanat::envs
