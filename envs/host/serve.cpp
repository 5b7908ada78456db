#include "envs/host/serve.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "core/clock.h"
#include "core/error.h"
#include "envs/abi.h"

namespace qanat::envs::host {
namespace {

// False at the end of the stream.
bool read_exactly(int file, void* out, std::size_t size) {
  auto* at = static_cast<std::byte*>(out);
  while (size > 0) {
    const auto got = read(file, at, size);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    at += got;
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

std::vector<std::byte> receive(int file) {
  std::uint64_t size = 0;
  if (!read_exactly(file, &size, sizeof size)) throw RunError("the other side closed the pipe");
  if (size > max_message_bytes) throw InputError(text("a message of ", size, " bytes"));
  std::vector<std::byte> bytes(size);
  if (!read_exactly(file, bytes.data(), size)) throw RunError("the other side closed the pipe");
  return bytes;
}

void write_all(int file, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto done = write(file, bytes.data(), bytes.size());
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) throw SystemError(text("cannot write to the pipe: ", std::strerror(errno)));
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
}

void send(int file, std::span<const std::byte> message) {
  const std::uint64_t size = message.size();
  write_all(file, std::as_bytes(std::span(&size, 1)));
  write_all(file, message);
}

std::size_t slots_of(const Request& request) {
  const auto found = request.find("slots");
  const auto slots = found == request.end() ? 0 : std::strtoull(found->second.c_str(), nullptr, 10);
  if (slots < 1 || slots > (1U << 20)) throw InputError("a request without a number of slots");
  return slots;
}

OwnedSpec owned(const EnvSpec& spec) {
  OwnedSpec out;
  out.id = spec.id;
  for (const auto& o : spec.observations) {
    out.observations.push_back(
        {o.tensor.name, static_cast<std::uint32_t>(o.tensor.dtype), o.tensor.shape, o.low, o.high});
  }
  out.action_kind = static_cast<std::uint32_t>(spec.action.kind);
  out.action_n = spec.action.n;
  out.nvec = spec.action.nvec;
  out.low = spec.action.low;
  out.high = spec.action.high;
  out.has_action_mask = spec.has_action_mask;
  out.metrics = spec.metrics;
  out.max_episode_steps = spec.max_episode_steps;
  out.can_snapshot = spec.can_snapshot;
  out.can_render = spec.can_render;
  return out;
}

class Server {
 public:
  Server(EnvHandle env, const SharedMemory& memory, const Layout& layout, const EnvSpec& spec)
      : env_(std::in_place, std::move(env)), memory_(memory), layout_(layout) {
    buffers_.struct_size = sizeof buffers_;
    for (std::size_t i = 0; i < spec.observations.size(); ++i) {
      buffers_.observations[i] = memory.at(layout.observations[i]);
      buffers_.final_observations[i] = memory.at(layout.final_observations[i]);
    }
    buffers_.rewards = memory.at<float>(layout.rewards);
    buffers_.terminated = memory.at<std::uint8_t>(layout.terminated);
    buffers_.truncated = memory.at<std::uint8_t>(layout.truncated);
    buffers_.resetting = memory.at<std::uint8_t>(layout.resetting);
    if (spec.has_action_mask) {
      buffers_.action_mask = memory.at<std::uint8_t>(layout.mask);
      buffers_.final_action_mask = memory.at<std::uint8_t>(layout.final_mask);
    }
    if (!spec.metrics.empty()) buffers_.metrics = memory.at<double>(layout.metrics);
  }

  void answer() {
    Control& control = memory_.control();
    const auto number = control.request.load(std::memory_order_acquire);
    const SteadyClock clock;
    const auto begin = clock.now();
    qanat_env_error error{};
    error.struct_size = sizeof error;
    error.slot = -1;
    const bool failed = run(static_cast<Command>(control.command), control, error) != QANAT_ENV_OK;
    control.failed = failed ? 1 : 0;
    if (failed) {
      const std::size_t size = std::min(strnlen(error.message, sizeof error.message), Control::error_bytes);
      std::memcpy(control.error.data(), error.message, size);
      control.error_size = size;
      control.error_slot = error.slot;
    }
    control.work_ns = static_cast<std::uint32_t>(std::min<std::int64_t>((clock.now() - begin).count(), UINT32_MAX));
    control.response.store(number, std::memory_order_release);
  }

 private:
  static std::int32_t refuse(qanat_env_error& error, const char* what) {
    std::strncpy(error.message, what, sizeof error.message - 1);
    return QANAT_ENV_FAILED;
  }

  std::int32_t run(Command command, Control& control, qanat_env_error& error) {
    if (!env_) return refuse(error, "a call after the last");
    const qanat_env_table& table = env_->table();
    auto* scratch = memory_.at<std::uint8_t>(layout_.scratch);
    std::size_t size = 0;
    switch (command) {
      case Command::reset: {
        const auto* which = control.some != 0 ? memory_.at<std::uint8_t>(layout_.which) : nullptr;
        for (std::size_t s = 0; s < layout_.slots; ++s) {
          if (which == nullptr || which[s] != 0) buffers_.resetting[s] = 0;
        }
        return table.reset(env_->get(), memory_.at<std::uint64_t>(layout_.seeds), which, &buffers_, &error);
      }
      case Command::step:
        std::fill_n(buffers_.resetting, layout_.slots, std::uint8_t{0});
        return table.step(env_->get(), memory_.at(layout_.actions), &buffers_, &error);
      case Command::snapshot: {
        const auto result = table.snapshot(env_->get(), control.slot, scratch, scratch_bytes, &size, &error);
        control.result_size = size;
        return result;
      }
      case Command::restore:
        return table.restore(env_->get(), control.slot, scratch, control.size, &buffers_, &error);
      case Command::render:
        return table.render(env_->get(), control.slot, scratch, scratch_bytes, &control.height, &control.width, &error);
      case Command::close:
        env_.reset();
        return QANAT_ENV_OK;
    }
    return refuse(error, "a call of an unknown kind");
  }

  std::optional<EnvHandle> env_;  // empty: closed
  const SharedMemory& memory_;
  const Layout& layout_;
  qanat_env_buffers buffers_{};
};

}  // namespace

void serve(int memory_file, int from, int to, const Open& open) {
  const Request request = decode_request(receive(from));
  const std::size_t slots = slots_of(request);
  Description description;
  std::optional<EnvHandle> env;
  EnvSpec spec;
  if (const auto index = request.find("first_index"); index != request.end()) {
    setenv("QANAT_ENV_INDEX", index->second.c_str(), 1);
  }
  try {
    env.emplace(open(request, slots));
    spec = read_spec(env->table(), env->table().spec(env->get()));
    description.spec = owned(spec);
    description.protocol = env->protocol;
  } catch (const Error& error) {
    description.error = error.what();
  }
  send(to, encode(description));
  if (!description.error.empty()) return;
  const Layout layout = decode_layout(receive(from));
  const SharedMemory memory(memory_file, layout.total);
  Server server(std::move(*env), memory, layout, spec);
  const std::byte bell{1};
  write_all(to, std::span(&bell, 1));
  std::byte rung{};
  Control& control = memory.control();
  while (read_exactly(from, &rung, 1)) {
    server.answer();
    write_all(to, std::span(&bell, 1));
    control.answered.store(control.response.load(std::memory_order_relaxed), std::memory_order_relaxed);
  }
}

}  // namespace qanat::envs::host
