#include "envs/probe.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <limits>

#include "envs/abi.h"

namespace qanat::envs {
namespace {

constexpr std::size_t guard = 64;
constexpr std::byte guard_byte{0xC3};
constexpr double infinity = std::numeric_limits<double>::infinity();

std::int64_t now_ns() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

qanat_env_error empty_error() {
  qanat_env_error error{};
  error.struct_size = sizeof error;
  error.slot = -1;
  return error;
}

std::string message_of(const qanat_env_error& error) {
  const std::string message(error.message, strnlen(error.message, sizeof error.message));
  return message.empty() ? "it gave no reason" : message;
}

}  // namespace

std::string ProbeField::describe() const {
  return tensor.shape.empty() ? text(tensor.name, ' ', name_of(tensor.dtype)) : tensor.describe();
}

std::string ProbeField::describe(std::size_t element) const {
  if (tensor.shape.empty()) return describe();
  std::vector<std::size_t> index(tensor.shape.size());
  for (std::size_t d = index.size(); d-- > 0;) {
    index[d] = element % static_cast<std::size_t>(tensor.shape[d]);
    element /= static_cast<std::size_t>(tensor.shape[d]);
  }
  std::string out = describe();
  for (std::size_t d = 0; d < index.size(); ++d) out += text(d == 0 ? " at [" : ", ", index[d]);
  return out + "]";
}

Probe::Probe(EnvHandle env, std::size_t slots, std::uint8_t fill, ProbeProgress* progress)
    : env_(std::move(env)), slots_(slots), fill_(static_cast<std::byte>(fill)), progress_(progress) {
  try {
    spec_ = read_spec(env_.table(), env_.table().spec(env_.get()));
  } catch (const InputError& broken) {
    throw EnvironmentFault("spec", broken.what());
  }
  describe_fields();
  for (auto& set : sets_) allocate(set);
  seeds_.resize(slots);
  episode_steps_.resize(slots);
  over_.resize(slots);
  late_.resize(slots);
  pending_.resize(slots);
  masks_.resize(spec_.has_action_mask ? slots * spec_.action.choices() : 0);
}

void Probe::describe_fields() {
  using Written = ProbeField::Written;
  const auto add = [&](const std::string& name, DType dtype, std::vector<std::int64_t> shape, double low, double high,
                       Written written) {
    fields_.push_back({{name, dtype, std::move(shape)}, low, high, written});
  };
  // Flags first: what must be written at ends depends on them.
  terminated_ = fields_.size();
  add("terminated", DType::u8, {}, 0, 1, Written::by_step);
  truncated_ = fields_.size();
  add("truncated", DType::u8, {}, 0, 1, Written::by_step);
  add("reward", DType::f32, {}, -infinity, infinity, Written::by_step);
  for (const bool last : {false, true}) {
    const std::string prefix = last ? "final_" : "";
    const auto written = last ? Written::at_ends : Written::by_reset;
    for (const auto& column : spec_.observations) {
      add(prefix + "observation " + column.tensor.name, column.tensor.dtype, column.tensor.shape, column.low,
          column.high, written);
    }
    if (spec_.has_action_mask) {
      add(prefix + "action_mask", DType::u8, {static_cast<std::int64_t>(spec_.action.choices())}, 0, 1, written);
    }
  }
  if (!spec_.metrics.empty()) {
    add("metrics", DType::f64, {static_cast<std::int64_t>(spec_.metrics.size())}, -infinity, infinity,
        Written::at_ends);
  }
  mask_ = find("action_mask");
}

std::size_t Probe::find(std::string_view name) const {
  const auto at = std::find_if(fields_.begin(), fields_.end(), [&](const auto& f) { return f.tensor.name == name; });
  return static_cast<std::size_t>(at - fields_.begin());
}

void Probe::allocate(BufferSet& set) const {
  set.buffers.resize(fields_.size());
  set.kept.resize(fields_.size());
  for (std::size_t f = 0; f < fields_.size(); ++f) {
    set.buffers[f].size = slots_ * fields_[f].tensor.bytes();
    set.buffers[f].bytes.resize(set.buffers[f].size + 2 * guard);
  }
  const auto data = [&](std::size_t field) -> void* {
    return field < fields_.size() ? set.buffers[field].bytes.data() + guard : nullptr;
  };
  set.resetting.resize(slots_);
  set.view.struct_size = sizeof set.view;
  set.view.resetting = set.resetting.data();
  for (std::size_t i = 0; i < spec_.observations.size(); ++i) {
    const auto& name = spec_.observations[i].tensor.name;
    set.view.observations[i] = data(find("observation " + name));
    set.view.final_observations[i] = data(find("final_observation " + name));
  }
  set.view.rewards = static_cast<float*>(data(find("reward")));
  set.view.terminated = static_cast<std::uint8_t*>(data(terminated_));
  set.view.truncated = static_cast<std::uint8_t*>(data(truncated_));
  set.view.action_mask = static_cast<std::uint8_t*>(data(mask_));
  set.view.final_action_mask = static_cast<std::uint8_t*>(data(find("final_action_mask")));
  set.view.metrics = static_cast<double*>(data(find("metrics")));
}

void Probe::prepare(BufferSet& set) const {
  std::fill(set.resetting.begin(), set.resetting.end(), std::uint8_t{0});
  for (auto& buffer : set.buffers) {
    const auto begin = buffer.bytes.begin();
    std::fill(begin, begin + guard, guard_byte);
    std::fill(begin + guard, buffer.bytes.end() - guard, fill_);
    std::fill(buffer.bytes.end() - guard, buffer.bytes.end(), guard_byte);
  }
}

void Probe::require_unchanged(const BufferSet& set) const {
  for (std::size_t f = 0; f < fields_.size(); ++f) {
    const auto& kept = set.kept[f];
    const auto& bytes = set.buffers[f].bytes;
    const auto at = std::mismatch(kept.begin(), kept.end(), bytes.begin()).first;
    if (at == kept.end()) continue;
    const auto offset = static_cast<std::size_t>(at - kept.begin()) - guard;
    const auto row = std::max<std::size_t>(fields_[f].tensor.bytes(), 1);
    throw EnvironmentFault(
        "changed-after-return",
        text("step ", steps_, ": ", fields_[f].tensor.name, " was changed after the call that wrote it had returned, ",
             "in slot ", offset / row, ", element ", offset % row / size_of(fields_[f].tensor.dtype),
             "; an environment keeps no pointer to a buffer"));
  }
}

void Probe::require_unchanged() const { require_unchanged(sets_[current_]); }

void Probe::require_guards(const BufferSet& set, const char* call) const {
  for (std::size_t f = 0; f < fields_.size(); ++f) {
    const auto& buffer = set.buffers[f];
    const auto intact = [](std::byte b) { return b == guard_byte; };
    const auto name = fields_[f].describe();
    if (!std::all_of(buffer.bytes.begin(), buffer.bytes.begin() + guard, intact)) {
      throw EnvironmentFault("overrun", text(call, " wrote before the beginning of ", name, ", ", slots_, " slots"));
    }
    const auto end = buffer.bytes.end() - guard;
    const auto bad = std::find_if_not(end, buffer.bytes.end(), intact);
    if (bad == buffer.bytes.end()) continue;
    throw EnvironmentFault("overrun", text(call, " wrote beyond the end of ", name, ", ", slots_, " slots: ", bad - end,
                                           " bytes after its ", buffer.size));
  }
}

template <class Call>
bool Probe::call(const char* name, Call&& body) {
  const std::int64_t began = now_ns();
  if (progress_ != nullptr) {
    progress_->step = steps_;
    progress_->entered = began;
    progress_->call = name;
  }
  const auto leave = [&] {
    if (progress_ != nullptr) progress_->call = nullptr;
    const double seconds = static_cast<double>(now_ns() - began) * 1e-9;
    if (seconds <= slowest_seconds_) return;
    slowest_seconds_ = seconds;
    slowest_call_ = text(name, steps_ > 0 ? text(" (step ", steps_, " of the batch)") : "");
  };
  const auto escaped = [&](const char* what) {
    leave();
    throw EnvironmentFault("exception", text(name, ": an exception crossed the C interface: ", what));
  };
  const auto* events = env_.events.get();
  const auto restarts = events != nullptr ? events->restarts : 0;
  bool good = false;
  try {
    good = body() == QANAT_ENV_OK;
  } catch (const std::exception& thrown) {
    escaped(thrown.what());
  } catch (...) {
    escaped("not a std::exception");
  }
  leave();
  if (events != nullptr && events->restarts != restarts)
    throw EnvironmentFault(events->hung ? "hang" : "crash", text(name, ": ", events->lines.back()));
  return good;
}

void Probe::fail(const char* name, const qanat_env_error& error) const {
  const bool known = error.slot >= 0 && static_cast<std::size_t>(error.slot) < slots_;
  throw EnvironmentFault(name, text(name, " failed", known ? " at " : "",
                                    known ? where(static_cast<std::size_t>(error.slot)) : "", ": ", message_of(error)));
}

void Probe::reset(std::span<const std::uint64_t> seeds, std::span<const std::uint8_t> which) {
  reset_.assign(slots_, 1);
  if (!which.empty()) reset_.assign(which.begin(), which.end());
  for (std::size_t slot = 0; slot < slots_; ++slot) {
    if (reset_[slot] == 0) continue;
    seeds_[slot] = seeds[slot];
    episode_steps_[slot] = 0;
    over_[slot] = pending_[slot] = 0;
  }
  stepped_ = false;
  auto& set = sets_[1 - current_];
  prepare(set);
  qanat_env_error error = empty_error();
  const auto body = [&] {
    return env_.table().reset(env_.get(), seeds_.data(), which.empty() ? nullptr : reset_.data(), &set.view, &error);
  };
  if (!call("reset", body)) fail("reset", error);
  finish("reset");
}

void Probe::step(const ProbeActions& actions) {
  actions_ = actions;
  ++steps_;
  for (std::size_t slot = 0; slot < slots_; ++slot) {
    late_[slot] = pending_[slot];
    episode_steps_[slot] = late_[slot] != 0 ? 0 : over_[slot] != 0 ? 1 : episode_steps_[slot] + 1;
  }
  auto& set = sets_[1 - current_];
  prepare(set);
  qanat_env_error error = empty_error();
  stepped_ = true;
  if (!call("step", [&] { return env_.table().step(env_.get(), actions_.data(), &set.view, &error); }))
    fail("step", error);
  finish("step");
  pending_ = sets_[current_].resetting;
  for (std::size_t slot = 0; slot < slots_; ++slot) over_[slot] = late_[slot] == 0 && ended(slot);
}

void Probe::finish(const char* name) {
  auto& fresh = sets_[1 - current_];
  require_guards(fresh, name);
  require_unchanged(sets_[current_]);
  for (std::size_t f = 0; f < fields_.size(); ++f) fresh.kept[f] = fresh.buffers[f].bytes;
  current_ = 1 - current_;
  remember_masks();
}

void Probe::remember_masks() {
  if (!spec_.has_action_mask) return;
  const std::size_t choices = spec_.action.choices();
  for (std::size_t slot = 0; slot < slots_; ++slot) {
    if (must_write(mask_, slot)) std::memcpy(masks_.data() + slot * choices, row(mask_, slot).data(), choices);
  }
}

std::span<const std::byte> Probe::row(std::size_t field, std::size_t slot) const {
  const std::size_t bytes = fields_[field].tensor.bytes();
  return std::span(sets_[current_].kept[field]).subspan(guard + slot * bytes, bytes);
}

bool Probe::unwritten(std::size_t field, std::size_t slot, std::size_t element) const {
  const std::size_t size = size_of(fields_[field].tensor.dtype);
  const auto bytes = row(field, slot).subspan(element * size, size);
  return std::all_of(bytes.begin(), bytes.end(), [&](std::byte b) { return b == fill_; });
}

bool Probe::ended(std::size_t slot) const {
  // A flag that was not written holds the pattern: that is a fault of its own and no end.
  const auto set = [&](std::size_t flag) {
    const std::byte value = row(flag, slot)[0];
    return value != std::byte{0} && value != fill_;
  };
  return stepped_ && (set(terminated_) || set(truncated_));
}

bool Probe::must_write(std::size_t field, std::size_t slot) const {
  switch (fields_[field].written) {
    case ProbeField::Written::by_reset:
      return stepped_ || reset_[slot] != 0;
    case ProbeField::Written::by_step:
      return stepped_;
    case ProbeField::Written::at_ends:
      return ended(slot);
  }
  return false;
}

std::vector<std::byte> Probe::record(std::size_t slot, bool state) const {
  std::vector<std::byte> out;
  for (std::size_t f = 0; f < fields_.size(); ++f) {
    if (!must_write(f, slot) || (state && fields_[f].written != ProbeField::Written::by_reset)) continue;
    const auto bytes = row(f, slot);
    out.insert(out.end(), bytes.begin(), bytes.end());
  }
  return out;
}

void Probe::draw(Rng& rng, ProbeActions& out) const {
  const auto& space = spec_.action;
  const std::size_t dims = space.dims();
  if (space.kind == ActionSpace::Kind::box) {
    out.real.resize(slots_ * dims);
    for (std::size_t i = 0; i < out.real.size(); ++i) {
      const float low = space.low[i % dims];
      const float high = space.high[i % dims];
      const auto inside = static_cast<float>(rng.uniform(static_cast<double>(low), static_cast<double>(high)));
      out.real[i] = rng.chance(0.05) ? (rng.chance(0.5) ? low : high) : std::clamp(inside, low, high);
    }
    return;
  }
  out.whole.resize(slots_ * dims);
  for (std::size_t slot = 0; slot < slots_; ++slot) {
    const std::uint8_t* mask = masks_.empty() ? nullptr : masks_.data() + slot * space.choices();
    for (std::size_t d = 0; d < dims; ++d) {
      const auto n = static_cast<std::uint64_t>(space.kind == ActionSpace::Kind::discrete ? space.n : space.nvec[d]);
      std::uint64_t action = rng.below(n);
      if (mask != nullptr) {
        // The first allowed one from there on; where none is, the check has said so.
        for (std::uint64_t tried = 0; tried < n && mask[action] != 1; ++tried) action = (action + 1) % n;
        mask += n;
      }
      out.whole[slot * dims + d] = static_cast<std::int32_t>(action);
    }
  }
}

std::vector<std::byte> Probe::snapshot(std::size_t slot) {
  qanat_env_error error = empty_error();
  std::size_t size = 0;
  std::vector<std::byte> bytes;
  const auto take = [&] {
    const auto body = [&] {
      return env_.table().snapshot(env_.get(), slot, bytes.data(), bytes.size(), &size, &error);
    };
    if (!call("snapshot", body)) fail("snapshot", error);
  };
  take();
  bytes.resize(size);
  take();
  if (size != bytes.size()) {
    throw EnvironmentFault("snapshot", text(where(slot), ": the snapshot needs ", bytes.size(),
                                            " bytes when asked and ", size, " when taken"));
  }
  return bytes;
}

std::optional<std::string> Probe::restore(std::size_t slot, std::span<const std::byte> bytes) {
  qanat_env_error error = empty_error();
  auto& set = sets_[1 - current_];
  prepare(set);
  const auto body = [&] {
    return env_.table().restore(env_.get(), slot, bytes.data(), bytes.size(), &set.view, &error);
  };
  if (!call("restore", body)) return message_of(error);
  // The rows it writes are those of a reset of this slot.
  reset_.assign(slots_, 0);
  reset_[slot] = 1;
  over_[slot] = pending_[slot] = 0;
  stepped_ = false;
  finish("restore");
  return std::nullopt;
}

void Probe::require_same_spec() const {
  const EnvSpec now = [&] {
    try {
      return read_spec(env_.table(), env_.table().spec(env_.get()));
    } catch (const InputError& broken) {
      throw EnvironmentFault("spec", text("after ", steps_, " steps: ", broken.what()));
    }
  }();
  const auto columns_differ = [](const ObservationSpec& a, const ObservationSpec& b) {
    return !(a.tensor == b.tensor) || a.low != b.low || a.high != b.high;
  };
  bool same = now.observations.size() == spec_.observations.size() && now.action.n == spec_.action.n &&
              now.action.nvec == spec_.action.nvec && now.has_action_mask == spec_.has_action_mask &&
              now.max_episode_steps == spec_.max_episode_steps && now.metrics == spec_.metrics;
  for (std::size_t i = 0; same && i < now.observations.size(); ++i) {
    same = !columns_differ(now.observations[i], spec_.observations[i]);
  }
  if (!same) throw EnvironmentFault("spec", text("after ", steps_, " steps: the spec is not what it was at first"));
}

std::string Probe::where(std::size_t slot) const {
  std::string place = text(stepped_ ? text("step ", steps_) : "reset", ", slot ", slot, " (seed ", seeds_[slot]);
  if (!stepped_) return place + ")";
  place += text(", step ", episode_steps_[slot], " of its episode), action");
  const std::size_t dims = spec_.action.dims();
  for (std::size_t d = 0; d < dims; ++d) {
    const std::size_t at = slot * dims + d;
    place += actions_.real.empty() ? text(" ", actions_.whole[at]) : text(" ", actions_.real[at]);
  }
  return place;
}

}  // namespace qanat::envs
