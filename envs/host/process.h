// One child process that hosts a batch of environments, and the conversation with it.
//
// Owned by one thread. Between us and the child is a keeper (envs/host/keeper.h): the destructor, the child's own end
// and ours, or that of the thread that started it, end whatever was started from there, wherever it went.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/files.h"
#include "envs/host/protocol.h"

namespace qanat::envs::host {

// How a call went.
enum class Answer {
  ok,
  failed,     // the environment's own error; error() says which
  died,       // the process ended; how_it_ended() says how
  timed_out,  // still running, or stopped
};

// What a child is at within a call: the slot (-1: none in particular), and whether it is being reset.
struct Stage {
  std::int64_t slot = -1;
  bool reset = false;
  friend bool operator==(const Stage&, const Stage&) = default;
};

// How long each part of a call may take.
struct CallLimits {
  Nanoseconds other;       // of one slot, or of all at once
  Nanoseconds reset;       // of one slot
  Nanoseconds resets_all;  // of all slots at once
  [[nodiscard]] Nanoseconds of(const Stage& stage) const {
    if (!stage.reset) return other;
    return stage.slot < 0 ? resets_all : reset;
  }
};

// The program that runs as keeper and as `env serve`: this one, or what QANAT_PROGRAM names.
[[nodiscard]] std::string own_program();

class HostProcess {
 public:
  // Starts the program. The numbers of the three descriptors are appended to `arguments`; arguments[0] is looked for on
  // the PATH. `while_waiting` is called about every 100 ms in which we wait for an answer. Throws SystemError when
  // there is no process to be had. That the program cannot be run shows in what follows, as a ConfigError.
  HostProcess(std::vector<std::string> arguments, std::function<void()> while_waiting);
  HostProcess(const HostProcess&) = delete;
  HostProcess& operator=(const HostProcess&) = delete;
  ~HostProcess();

  // The set-up conversation. The two functions throw ConfigError when the child says why there is no environment or
  // ends, InputError when it talks nonsense; RunError when it takes longer than the limit, which each of `slots`
  // environments has for itself where the child says how far it is.
  [[nodiscard]] Description describe(const Request& request, std::size_t slots, Seconds limit);
  void share(const Layout& layout, Seconds limit);

  // One call; arguments are in the shared buffers. Blocks until the answer or the limit.
  [[nodiscard]] Answer call(Command command, const CallLimits& limits);
  // Whether a call's answer is still to come, because what was called while waiting threw.
  [[nodiscard]] bool busy() const { return busy_; }
  // What the child took in its last call although it was not as it should be; mostly empty.
  [[nodiscard]] std::string take_note();

  [[nodiscard]] const SharedMemory& memory() const { return memory_; }
  // After Answer::failed: the text, and the slot it concerns or -1.
  [[nodiscard]] std::string error() const;
  [[nodiscard]] std::int64_t error_slot() const;
  // The slot the child said it was working on; -1 when none in particular.
  [[nodiscard]] std::int64_t progress() const;
  [[nodiscard]] Stage stage(Command command) const;
  // Ends it and all that was started from it. Throws ConfigError when it had not been run at all. Says how it had ended
  // before that, or that it was running or stopped. `has_closed`: its pipe is closed, so it is given a moment to end by
  // itself.
  std::string kill(bool has_closed = false);

 private:
  [[nodiscard]] bool wait_readable(Nanoseconds deadline);
  void send(std::span<const std::byte> message);
  [[nodiscard]] std::vector<std::byte> receive(Nanoseconds deadline);
  void read_exactly(std::byte* out, std::size_t size, Nanoseconds deadline);
  [[nodiscard]] std::optional<char> wait_bell(std::uint32_t number, Command command, const CallLimits& limits);
  [[nodiscard]] bool wait_for_report(Nanoseconds limit) const;

  std::string program_;
  std::function<void()> while_waiting_;
  pid_t pid_ = -1;         // the keeper's
  FileDescriptor report_;  // from it, a KeeperReport
  bool busy_ = false;
  FileDescriptor file_;
  FileDescriptor to_read_, to_write_;  // we keep the reading end, so that writing to a dead child raises no signal
  FileDescriptor from_;
  SharedMemory memory_;
  std::uint32_t number_ = 0;
  Nanoseconds usual_work_{0};  // of the child in a step
  Nanoseconds answered_{0};
  std::uint64_t slots_ = 0;
};

}  // namespace qanat::envs::host
