#include "wire/inflow.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <map>
#include <mutex>
#include <unordered_map>

namespace qanat::wire {
namespace {

// ZMTP 3.1, sections 2 and 3.
constexpr std::byte signature{0xff};
constexpr std::size_t major_version_at = 10;
constexpr std::byte least_major_version{3};
constexpr std::byte more{1};
constexpr std::byte long_size{2};
constexpr std::byte command{4};

std::atomic<std::uint64_t> resets{0};  // a lone counter: nothing is ordered by it

struct Followed {
  std::mutex mutex;  // guards both; ZeroMQ's threads and those that bind take it, for some map look-ups at most
  std::map<std::string, MessageLimits> limits;  // by key_of() an endpoint
  std::unordered_map<int, MessageMeter> connections;
};

Followed& followed() {
  static auto& all = *new Followed;  // never destroyed: ZeroMQ's threads may outlive this thread's statics
  return all;
}

// A port, or a path.
std::string key_of(const std::string& endpoint) {
  if (endpoint.starts_with("ipc://")) return endpoint.substr(6);
  return endpoint.substr(endpoint.rfind(':') + 1);
}

std::string key_of(int listener) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) != 0) return {};
  switch (address.ss_family) {
    case AF_UNIX:
      return reinterpret_cast<const sockaddr_un*>(&address)->sun_path;
    case AF_INET:
      return std::to_string(ntohs(reinterpret_cast<const sockaddr_in*>(&address)->sin_port));
    case AF_INET6:
      return std::to_string(ntohs(reinterpret_cast<const sockaddr_in6*>(&address)->sin6_port));
    default:
      return {};
  }
}

// False: the connection is over its limits.
bool take(int fd, std::span<const std::byte> bytes) {
  auto& all = followed();
  const std::lock_guard lock(all.mutex);
  const auto found = all.connections.find(fd);
  if (found == all.connections.end() || found->second.take(bytes)) return true;
  all.connections.erase(found);
  return false;
}

// The number means something else from now on, or nothing.
void forget(int fd) {
  auto& all = followed();
  const std::lock_guard lock(all.mutex);
  all.connections.erase(fd);
}

}  // namespace

void limit_messages(const std::string& endpoint, MessageLimits limits) {
  auto& all = followed();
  const std::lock_guard lock(all.mutex);
  all.limits[key_of(endpoint)] = limits;
}

std::uint64_t connections_reset() { return resets.load(std::memory_order_relaxed); }

void follow_connection(int listener, int fd) {
  auto& all = followed();
  const auto key = key_of(listener);
  const std::lock_guard lock(all.mutex);
  all.connections.erase(fd);
  const auto found = all.limits.find(key);
  if (found != all.limits.end()) all.connections.emplace(fd, found->second);
}

bool MessageMeter::take(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    if (body_left_ > 0) {
      const auto some = std::min<std::uint64_t>(body_left_, bytes.size());
      body_left_ -= some;
      bytes = bytes.subspan(some);
      continue;
    }
    if (!(greeted_ < greeting_bytes ? take_greeting(bytes.front()) : take_front(bytes.front()))) return false;
    bytes = bytes.subspan(1);
  }
  return true;
}

bool MessageMeter::take_greeting(std::byte next) {
  const auto at = greeted_++;
  return (at != 0 || next == signature) && (at != major_version_at || next >= least_major_version);
}

bool MessageMeter::take_front(std::byte next) {
  front_[front_size_++] = next;
  const bool is_long = (front_[0] & long_size) != std::byte{0};
  if (front_size_ < (is_long ? 9U : 2U)) return true;
  std::uint64_t bytes = 0;
  for (std::size_t i = 1; i < front_size_; ++i) bytes = bytes << 8 | std::to_integer<std::uint64_t>(front_[i]);
  front_size_ = 0;
  return begin_part(bytes);
}

bool MessageMeter::begin_part(std::uint64_t bytes) {
  body_left_ = bytes;
  if ((front_[0] & command) != std::byte{0}) return bytes <= limits_.bytes;  // taken at once, no part of a message
  ++message_parts_;
  if (message_parts_ > limits_.parts || bytes > limits_.bytes - message_bytes_) return false;
  message_bytes_ += bytes;
  if ((front_[0] & more) == std::byte{0}) message_bytes_ = message_parts_ = 0;
  return true;
}

}  // namespace qanat::wire

// The C library's for everybody in this process, as accept4() in wire/accept.cpp.
extern "C" [[gnu::visibility("default")]] ssize_t recv(int fd, void* buffer, std::size_t size, int flags) {
  const ssize_t got = syscall(SYS_recvfrom, fd, buffer, size, flags, nullptr, nullptr);
  if (got <= 0 || (flags & MSG_PEEK) != 0) return got;
  if (qanat::wire::take(fd, {static_cast<const std::byte*>(buffer), static_cast<std::size_t>(got)})) return got;
  qanat::wire::resets.fetch_add(1, std::memory_order_relaxed);
  errno = ECONNRESET;
  return -1;
}

// A number that was an accepted connection's may come back as another socket's.
extern "C" [[gnu::visibility("default")]] int socket(int domain, int type, int protocol) noexcept {
  const auto fd = static_cast<int>(syscall(SYS_socket, domain, type, protocol));
  if (fd >= 0) qanat::wire::forget(fd);
  return fd;
}
