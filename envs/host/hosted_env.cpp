#include "envs/host/hosted_env.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <thread>

#include "core/error.h"
#include "core/rng.h"
#include "envs/abi.h"
#include "envs/host/process.h"

namespace qanat::envs::host {
namespace {

// What the environment itself reports: the slot and its words, for qanat_env_error.
class CallFailed : public RunError {
 public:
  CallFailed(std::int64_t slot, const std::string& message) : RunError(message), slot_(slot) {}
  [[nodiscard]] std::int64_t slot() const { return slot_; }

 private:
  std::int64_t slot_;
};

Nanoseconds nanoseconds(Seconds s) { return std::chrono::duration_cast<Nanoseconds>(s); }

}  // namespace

class HostedEnv {
 public:
  HostedEnv(HostOptions options, std::shared_ptr<HostEvents> events)
      : options_(std::move(options)), events_(std::move(events)) {
    start();
    const std::size_t slots = options_.slots;
    seeds_.resize(slots);
    resetting_.resize(slots);
    for (const auto& observation : spec_.observations) last_.emplace_back(slots * observation.tensor.bytes());
    last_mask_.resize(spec_.has_action_mask ? slots * spec_.action.choices() : 0);
  }

  HostedEnv(const HostedEnv&) = delete;
  HostedEnv& operator=(const HostedEnv&) = delete;
  // An orderly end: the environment may close what it has open. What is left then is ended.
  ~HostedEnv() {
    if (!process_ || process_->busy()) return;
    try {
      const auto answer = process_->call(Command::close, limits(options_.close_limit));
      if (answer == Answer::timed_out) {
        std::fprintf(stderr, "environment %s: close() took longer than %g s (env.close_timeout_seconds), it is ended\n",
                     options_.id.c_str(), options_.close_limit.count());
      }
    } catch (const std::exception&) {
      // What is called while waiting may throw, at a run's end too; there is nothing left to be saved here.
    }
  }

  [[nodiscard]] const qanat_env_spec* spec() const { return description_.spec.get(); }
  [[nodiscard]] const std::string& id() const { return description_.spec.id; }
  [[nodiscard]] const Protocol& protocol() const { return description_.protocol; }

  void reset(const std::uint64_t* seeds, const std::uint8_t* which, const qanat_env_buffers& buffers) {
    for (std::size_t s = 0; s < options_.slots; ++s) {
      if (which == nullptr || which[s] != 0) seeds_[s] = seeds[s];
    }
    while (true) {
      const auto answer = process_ ? send_reset(seeds_, which) : Answer::died;
      if (answer == Answer::ok) break;
      if (answer == Answer::failed) throw_error();
      // Slots that were not to be reset lose their episodes too; the caller cannot be told within a reset.
      const bool partly = which != nullptr;
      fault(answer, Command::reset, nullptr);
      start();
      if (partly)
        throw CallFailed(-1, text("its process failed while single slots were reset: ", events_->lines.back()));
    }
    take_observations(which, buffers);
    take_resetting(which, buffers);
  }

  void step(const void* actions, const qanat_env_buffers& buffers) {
    const std::size_t bytes = options_.slots * spec_.action.dims() * sizeof(std::int32_t);
    const auto answer = send_step(actions, bytes);
    if (answer == Answer::failed) throw_error();
    if (answer != Answer::ok) {
      fault(answer, Command::step, actions);
      begin_again(buffers);
      return;
    }
    take_results(buffers);
    take_final_observations(buffers);
    take_observations(nullptr, buffers);
    take_resetting(nullptr, buffers);
  }

  void snapshot(std::uint64_t slot, void* out, std::size_t capacity, std::size_t* size) {
    Control& control = process_->memory().control();
    control.slot = slot;
    call_simply(Command::snapshot, "snapshot");
    *size = checked_size(control.result_size, "snapshot");
    if (capacity >= *size && *size > 0) std::memcpy(out, process_->memory().at(layout_.scratch), *size);
  }

  void restore(std::uint64_t slot, const void* bytes, std::size_t size, const qanat_env_buffers& buffers) {
    Control& control = process_->memory().control();
    control.slot = slot;
    control.size = checked_size(size, "snapshot");
    if (size > 0) std::memcpy(process_->memory().at(layout_.scratch), bytes, size);
    call_simply(Command::restore, "restore");
    std::vector<std::uint8_t> which(options_.slots);
    which[slot] = 1;
    take_observations(which.data(), buffers);
  }

  void render(std::uint64_t slot, std::uint8_t* out, std::size_t capacity, std::int32_t* height, std::int32_t* width) {
    Control& control = process_->memory().control();
    control.slot = slot;
    call_simply(Command::render, "render");
    *height = control.height;
    *width = control.width;
    if (*height < 1 || *width < 1) throw CallFailed(-1, text("a picture of ", *height, " x ", *width));
    const auto size =
        checked_size(3 * static_cast<std::uint64_t>(*height) * static_cast<std::uint64_t>(*width), "picture");
    if (capacity >= size) std::memcpy(out, process_->memory().at(layout_.scratch), size);
  }

 private:
  // ---- the process ------------------------------------------------------------------------------------------

  // Starts a process and prepares it for calls. One that will not start is a fault like any other once one has run.
  void start() {
    while (true) {
      try {
        process_ = std::make_unique<HostProcess>(options_.arguments, [this] {
          if (events_->while_waiting) events_->while_waiting();
        });
        Description description = process_->describe(options_.request, options_.slots, options_.start_limit);
        adopt(std::move(description));
        process_->share(layout_, options_.start_limit);
        return;
      } catch (const Error& error) {
        process_.reset();
        if (!described_ && dynamic_cast<const RunError*>(&error) != nullptr)
          throw RunError(text("environment ", options_.id, ": ", error.what()));
        if (!described_) throw;
        count_fault(text("starting it again failed: ", error.what()));
      }
    }
  }

  // The first description makes the spec; later ones must not differ, for all that has been built on it.
  void adopt(Description description) {
    if (!description.error.empty()) throw ConfigError(text("environment ", options_.id, ": ", description.error));
    if (description.spec.id.empty()) description.spec.id = options_.id;
    description.spec.link();
    qanat_env_table named{};
    named.id = options_.id.c_str();
    EnvSpec spec = read_spec(named, description.spec.get());
    const Layout layout = layout_of(spec, options_.slots);
    if (described_) {
      if (encode(description) != encode(description_)) {
        throw InputError(text("environment ", options_.id, ": another spec than before the restart"));
      }
      return;
    }
    described_ = true;
    description_ = std::move(description);
    description_.spec.link();
    spec_ = std::move(spec);
    layout_ = layout;
  }

  Answer send_reset(const std::vector<std::uint64_t>& seeds, const std::uint8_t* which) {
    const SharedMemory& memory = process_->memory();
    std::memcpy(memory.at(layout_.seeds), seeds.data(), seeds.size() * sizeof seeds[0]);
    if (which != nullptr) std::memcpy(memory.at(layout_.which), which, options_.slots);
    memory.control().some = which != nullptr ? 1 : 0;
    return called(Command::reset);
  }

  Answer send_step(const void* actions, std::size_t bytes) {
    if (!process_) return Answer::died;
    std::memcpy(process_->memory().at(layout_.actions), actions, bytes);
    return called(Command::step);
  }

  [[nodiscard]] CallLimits limits(Seconds other) const {
    return {nanoseconds(other), nanoseconds(options_.reset_limit), nanoseconds(reset_limit_of_all())};
  }
  // To read a game's files again for each slot takes its time, where one call resets all of them.
  [[nodiscard]] Seconds reset_limit_of_all() const {
    return options_.reset_limit + Seconds(0.5) * static_cast<double>(options_.slots);
  }

  Answer called(Command command) {
    const auto answer = process_->call(command, limits(options_.step_limit));
    if (answer != Answer::ok && answer != Answer::failed) return answer;
    if (const auto note = process_->take_note(); !note.empty()) {
      events_->notes.push_back(text("environment ", options_.id, ": ", note));
    }
    return answer;
  }

  void call_simply(Command command, const char* name) {
    const auto answer = process_->call(command, limits(options_.reset_limit));
    if (answer == Answer::failed) throw_error();
    if (answer == Answer::ok) return;
    const std::string was = process_->kill(answer == Answer::died);
    process_.reset();
    throw CallFailed(-1, text("its process failed during ", name, ": ", was));
  }

  [[noreturn]] void throw_error() const { throw CallFailed(process_->error_slot(), process_->error()); }

  static std::size_t checked_size(std::uint64_t size, const char* what) {
    if (size <= scratch_bytes) return size;
    throw CallFailed(-1, text("a ", what, " of ", size, " bytes, at most ", scratch_bytes, " wanted"));
  }

  // ---- faults -----------------------------------------------------------------------------------------------

  // Kills the process and says what was going on. Throws CallFailed when this was one fault too many.
  void fault(Answer answer, Command command, const void* actions) {
    std::string what = command == Command::reset ? "reset was not finished" : "step was not finished";
    std::int64_t slot = -1;
    std::string was = "it had failed to start";
    if (process_) {
      const Stage stage = process_->stage(command);
      slot = stage.slot;
      if (answer == Answer::timed_out) what = limit_text(stage);
      was = process_->kill(answer == Answer::died);
      process_.reset();
    }
    std::string where = slot < 0 ? text("all ", options_.slots, " slots") : text("slot ", slot);
    const auto s = static_cast<std::size_t>(std::max<std::int64_t>(slot, 0));
    where += text(slot < 0 ? " (first seed " : " (seed ", seeds_[s], ")");
    if (actions != nullptr) where += text(", last action", action_text(actions, s));
    events_->hung = answer == Answer::timed_out;
    count_fault(text(where, ": ", what, "; ", was));
  }

  [[nodiscard]] std::string limit_text(const Stage& stage) const {
    if (!stage.reset)
      return text("step took longer than ", options_.step_limit.count(), " s (env.step_timeout_seconds)");
    const bool all = stage.slot < 0 && options_.slots > 1;
    return text("reset took longer than ", (all ? reset_limit_of_all() : options_.reset_limit).count(),
                " s (env.reset_timeout_seconds", all ? ", and half a second for each slot" : "", ")");
  }

  void count_fault(const std::string& cause) {
    const auto now = SteadyClock().now();
    while (!faults_.empty() && now - faults_.front().when > fault_window) faults_.pop_front();
    faults_.push_back({now, cause});
    if (faults_.size() >= options_.most_faults) {
      events_->given_up = true;
      if (options_.most_faults == 1) throw CallFailed(-1, text("its process failed: ", cause));
      throw CallFailed(-1, text("its process failed ", faults_.size(), " times within ", fault_window.count(),
                                " minutes; the first time: ", faults_.front().cause));
    }
    ++events_->restarts;
    Seconds pause = options_.first_pause;
    for (std::size_t i = 1; i < faults_.size(); ++i) pause *= 3;
    events_->lines.push_back(text("environment ", options_.id, ", ", cause, "; its process is started again in ",
                                  pause.count(), " s, running episodes break off"));
    std::this_thread::sleep_for(pause);
  }

  [[nodiscard]] std::string action_text(const void* actions, std::size_t slot) const {
    std::string out;
    const std::size_t dims = spec_.action.dims();
    for (std::size_t d = 0; d < dims; ++d) {
      const std::size_t at = slot * dims + d;
      out += spec_.action.kind == ActionSpace::Kind::box ? text(" ", static_cast<const float*>(actions)[at])
                                                         : text(" ", static_cast<const std::int32_t*>(actions)[at]);
    }
    return out;
  }

  // After a fault within a step: a new process, new episodes, and the old ones' ends.
  void begin_again(const qanat_env_buffers& buffers) {
    const std::vector<std::uint8_t> was_resetting = resetting_;
    const std::vector<std::vector<std::byte>> seen = last_;
    const std::vector<std::uint8_t> seen_mask = last_mask_;
    for (std::size_t s = 0; s < seeds_.size(); ++s) seeds_[s] = derive_seed(seeds_[s], events_->restarts, s);
    while (true) {
      start();
      const auto answer = send_reset(seeds_, nullptr);
      if (answer == Answer::ok) break;
      if (answer == Answer::failed) throw_error();
      fault(answer, Command::reset, nullptr);
    }
    take_observations(nullptr, buffers);
    take_resetting(nullptr, buffers);
    for (std::size_t s = 0; s < options_.slots; ++s) {
      buffers.rewards[s] = 0;
      buffers.terminated[s] = 0;
      buffers.truncated[s] = was_resetting[s] == 0 ? 1 : 0;  // else its episode had ended before
    }
    for (std::size_t i = 0; i < seen.size(); ++i) {
      std::memcpy(buffers.final_observations[i], seen[i].data(), seen[i].size());
    }
    if (!seen_mask.empty()) std::memcpy(buffers.final_action_mask, seen_mask.data(), seen_mask.size());
    if (!spec_.metrics.empty()) std::fill_n(buffers.metrics, options_.slots * spec_.metrics.size(), 0.0);
  }

  // ---- results ----------------------------------------------------------------------------------------------

  void take_results(const qanat_env_buffers& buffers) {
    const SharedMemory& memory = process_->memory();
    std::memcpy(buffers.rewards, memory.at(layout_.rewards), options_.slots * sizeof(float));
    take_flags(buffers.terminated, layout_.terminated, "terminated");
    take_flags(buffers.truncated, layout_.truncated, "truncated");
    if (!spec_.metrics.empty()) {
      std::memcpy(buffers.metrics, memory.at(layout_.metrics), options_.slots * spec_.metrics.size() * sizeof(double));
    }
  }

  // Copied first, then looked at: the child might still write.
  void take_flags(std::uint8_t* out, std::uint64_t offset, const char* name) {
    std::memcpy(out, process_->memory().at(offset), options_.slots);
    for (std::size_t s = 0; s < options_.slots; ++s) {
      if (out[s] > 1) {
        throw CallFailed(static_cast<std::int64_t>(s),
                         text("its process wrote ", int{out[s]}, " as ", name, ", 0 or 1 wanted"));
      }
    }
  }

  void take_final_observations(const qanat_env_buffers& buffers) {
    const SharedMemory& memory = process_->memory();
    for (std::size_t s = 0; s < options_.slots; ++s) {
      if ((buffers.terminated[s] | buffers.truncated[s]) == 0) continue;
      for (std::size_t i = 0; i < last_.size(); ++i) {
        const std::size_t row = last_[i].size() / options_.slots;
        std::memcpy(static_cast<std::byte*>(buffers.final_observations[i]) + s * row,
                    memory.at(layout_.final_observations[i] + s * row), row);
      }
      take_mask_row(buffers.final_action_mask, layout_.final_mask, s);
    }
  }

  void take_observations(const std::uint8_t* which, const qanat_env_buffers& buffers) {
    const SharedMemory& memory = process_->memory();
    for (std::size_t i = 0; i < last_.size(); ++i) {
      auto* out = static_cast<std::byte*>(buffers.observations[i]);
      const std::size_t row = last_[i].size() / options_.slots;
      if (which == nullptr) {
        std::memcpy(last_[i].data(), memory.at(layout_.observations[i]), last_[i].size());
        std::memcpy(out, last_[i].data(), last_[i].size());
        continue;
      }
      for (std::size_t s = 0; s < options_.slots; ++s) {
        if (which[s] == 0) continue;
        std::memcpy(last_[i].data() + s * row, memory.at(layout_.observations[i] + s * row), row);
        std::memcpy(out + s * row, last_[i].data() + s * row, row);
      }
    }
    for (std::size_t s = 0; s < options_.slots && !last_mask_.empty(); ++s) {
      if (which != nullptr && which[s] == 0) continue;
      take_mask_row(buffers.action_mask, layout_.mask, s);
      const std::size_t row = last_mask_.size() / options_.slots;
      std::memcpy(last_mask_.data() + s * row, buffers.action_mask + s * row, row);
    }
  }

  void take_mask_row(std::uint8_t* out, std::uint64_t offset, std::size_t slot) {
    if (last_mask_.empty()) return;
    const std::size_t row = last_mask_.size() / options_.slots;
    std::memcpy(out + slot * row, process_->memory().at(offset + slot * row), row);
    for (std::size_t c = 0; c < row; ++c) {
      if (out[slot * row + c] > 1) {
        throw CallFailed(static_cast<std::int64_t>(slot),
                         text("its process wrote ", int{out[slot * row + c]}, " in the action mask, 0 or 1 wanted"));
      }
    }
  }

  void take_resetting(const std::uint8_t* which, const qanat_env_buffers& buffers) {
    std::vector<std::uint8_t>& flags = scratch_flags_;
    flags.resize(options_.slots);
    take_flags(flags.data(), layout_.resetting, "resetting");
    for (std::size_t s = 0; s < options_.slots; ++s) {
      if (which == nullptr || which[s] != 0) resetting_[s] = flags[s];
      buffers.resetting[s] = resetting_[s];
    }
  }

  struct Fault {
    Nanoseconds when;
    std::string cause;
  };

  HostOptions options_;
  std::shared_ptr<HostEvents> events_;
  std::unique_ptr<HostProcess> process_;
  bool described_ = false;
  Description description_;
  EnvSpec spec_;
  Layout layout_;
  std::deque<Fault> faults_;  // within fault_window
  std::vector<std::uint64_t> seeds_;
  std::vector<std::uint8_t> resetting_, scratch_flags_;
  // What the agent saw last, [slots, ...]: where a broken episode ends.
  std::vector<std::vector<std::byte>> last_;
  std::vector<std::uint8_t> last_mask_;
};

namespace {

HostedEnv& hosted(qanat_env* env) { return *reinterpret_cast<HostedEnv*>(env); }

std::int32_t fill(qanat_env_error* error, std::int64_t slot, const char* message) {
  error->slot = slot;
  std::strncpy(error->message, message, sizeof error->message - 1);
  error->message[sizeof error->message - 1] = '\0';
  return QANAT_ENV_FAILED;
}

template <class Call>
std::int32_t guarded(qanat_env_error* error, const Call& call) {
  try {
    call();
    return QANAT_ENV_OK;
  } catch (const CallFailed& failure) {
    return fill(error, failure.slot(), failure.what());
  } catch (const std::exception& failure) {
    return fill(error, -1, failure.what());
  }
}

// Made in process only: create() has no settings to go by.
std::int32_t create(const qanat_env_config*, qanat_env** env, qanat_env_error* error) {
  *env = nullptr;
  return fill(error, -1, "a hosted environment is made by create_hosted()");
}

void destroy(qanat_env* env) { delete reinterpret_cast<HostedEnv*>(env); }

const qanat_env_spec* spec(const qanat_env* env) { return hosted(const_cast<qanat_env*>(env)).spec(); }

std::int32_t reset(qanat_env* env, const std::uint64_t* seeds, const std::uint8_t* which,
                   const qanat_env_buffers* buffers, qanat_env_error* error) {
  return guarded(error, [&] { hosted(env).reset(seeds, which, *buffers); });
}

std::int32_t step(qanat_env* env, const void* actions, const qanat_env_buffers* buffers, qanat_env_error* error) {
  return guarded(error, [&] { hosted(env).step(actions, *buffers); });
}

std::int32_t snapshot(const qanat_env* env, std::uint64_t slot, void* out, std::size_t capacity, std::size_t* size,
                      qanat_env_error* error) {
  return guarded(error, [&] { hosted(const_cast<qanat_env*>(env)).snapshot(slot, out, capacity, size); });
}

std::int32_t restore(qanat_env* env, std::uint64_t slot, const void* bytes, std::size_t size,
                     const qanat_env_buffers* buffers, qanat_env_error* error) {
  return guarded(error, [&] { hosted(env).restore(slot, bytes, size, *buffers); });
}

std::int32_t render(const qanat_env* env, std::uint64_t slot, std::uint8_t* out, std::size_t capacity,
                    std::int32_t* height, std::int32_t* width, qanat_env_error* error) {
  return guarded(error, [&] { hosted(const_cast<qanat_env*>(env)).render(slot, out, capacity, height, width); });
}

}  // namespace

EnvHandle create_hosted(HostOptions options) {
  auto events = std::make_shared<HostEvents>();
  auto env = std::make_unique<HostedEnv>(std::move(options), events);
  qanat_env_table table{};
  table.abi_version = QANAT_ENV_ABI_VERSION;
  table.struct_size = sizeof table;
  table.id = env->id().c_str();
  table.create = create;
  table.destroy = destroy;
  table.spec = spec;
  table.reset = reset;
  table.step = step;
  table.snapshot = snapshot;
  table.restore = restore;
  table.render = render;
  Protocol protocol = env->protocol();
  EnvHandle handle(table, reinterpret_cast<qanat_env*>(env.release()));
  handle.events = std::move(events);
  handle.protocol = std::move(protocol);
  return handle;
}

}  // namespace qanat::envs::host
