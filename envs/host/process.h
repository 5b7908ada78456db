// One child process that hosts a batch of environments, and the conversation with it.
//
// Owned by one thread. The destructor kills what is still running, its own children included, and reaps it. The child
// is killed by the kernel when the thread that started it ends, and sees its pipe close when the whole process does.
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

class HostProcess {
 public:
  // Starts the program. The numbers of the three descriptors are appended to `arguments`; arguments[0] is looked for on
  // the PATH. `while_waiting` is called about every 100 ms in which we wait for an answer. Throws SystemError when
  // there is no process to be had, ConfigError when the program cannot be run.
  HostProcess(std::vector<std::string> arguments, std::function<void()> while_waiting);
  HostProcess(const HostProcess&) = delete;
  HostProcess& operator=(const HostProcess&) = delete;
  ~HostProcess();

  // The set-up conversation. The two functions throw ConfigError when the child says why there is no environment or
  // ends, InputError when it talks nonsense; RunError when it takes longer than the limit.
  [[nodiscard]] Description describe(const Request& request, Seconds limit);
  void share(const Layout& layout, Seconds limit);

  // One call; arguments are in the shared buffers. Blocks until the answer or the limit.
  [[nodiscard]] Answer call(Command command, Nanoseconds limit);

  [[nodiscard]] const SharedMemory& memory() const { return memory_; }
  [[nodiscard]] pid_t pid() const { return pid_; }
  // After Answer::failed: the text, and the slot it concerns or -1.
  [[nodiscard]] std::string error() const;
  [[nodiscard]] std::int64_t error_slot() const;
  // The slot the child said it was working on; -1 when none in particular.
  [[nodiscard]] std::int64_t progress() const;
  // Kills and reaps it. Says how it had ended before that, or that it was running or stopped. `has_closed`: its pipe is
  // closed, so it is given a moment to end by itself.
  std::string kill(bool has_closed = false);

 private:
  [[nodiscard]] bool wait_readable(Nanoseconds deadline);
  void send(std::span<const std::byte> message);
  [[nodiscard]] std::vector<std::byte> receive(Nanoseconds deadline);
  void read_exactly(std::byte* out, std::size_t size, Nanoseconds deadline);
  [[nodiscard]] std::optional<char> wait_bell(std::uint32_t number, Nanoseconds deadline);

  std::string program_;
  std::function<void()> while_waiting_;
  pid_t pid_ = -1;
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
