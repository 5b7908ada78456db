#include "wire/accept.h"

#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "core/limits.h"
#include "wire/inflow.h"

namespace {

std::atomic<std::uint64_t> refused{0};  // a lone counter: nothing is ordered by it

}  // namespace

namespace qanat::wire {

std::uint64_t connections_refused() { return refused.load(std::memory_order_relaxed); }

}  // namespace qanat::wire

// The C library's for everybody in this process: the dynamic linker finds the program's own first. The system gives the
// lowest free number, so a high one says that nearly all are taken.
extern "C" [[gnu::visibility("default")]] int accept4(int listener, sockaddr* address, socklen_t* length, int flags) {
  const long got = syscall(SYS_accept4, listener, address, length, flags);
  const auto limit = qanat::descriptor_limit();
  if (got < 0) {
    // Of this one errno ZeroMQ says over ipc that it cannot be.
    if (errno == EMFILE) errno = ENFILE;
    return -1;
  }
  if (static_cast<std::uint64_t>(got) + qanat::descriptor_reserve(limit) < limit) {
    qanat::wire::follow_connection(listener, static_cast<int>(got));
    return static_cast<int>(got);
  }
  refused.fetch_add(1, std::memory_order_relaxed);
  close(static_cast<int>(got));
  errno = ECONNABORTED;
  return -1;
}
