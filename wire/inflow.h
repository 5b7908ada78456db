// What a connection may send of one message before its last part has come.
//
// ZeroMQ keeps a message's parts until the last one is there. It bounds each part's size, but neither their number nor
// their sum, and shows nothing of them to us before: a message that never ends grows a process without end. Its recv()
// is ours, as its accept4() is (wire/accept.h): on connections to our endpoints it follows the framing of ZMTP 3.x, and
// one that begins a part beyond the limits, or speaks no ZMTP 3, is reset: ZeroMQ then drops what it has of the
// message.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace qanat::wire {

struct MessageLimits {
  std::uint64_t bytes = 0;  // of all parts
  std::uint64_t parts = 0;
};

// Holds for connections that are accepted from now on at this endpoint, "tcp://host:port" or "ipc://path" as it was
// bound. Thread safe.
void limit_messages(const std::string& endpoint, MessageLimits limits);
// Connections that were reset since the start. Thread safe.
[[nodiscard]] std::uint64_t connections_reset();

// For accept4(): `fd` was accepted from `listener`.
void follow_connection(int listener, int fd);

// Follows what comes by one connection.
class MessageMeter {
 public:
  explicit MessageMeter(MessageLimits limits) : limits_(limits) {}

  // The next bytes. False: the message they belong to is over the limits, or this is not ZMTP 3.
  [[nodiscard]] bool take(std::span<const std::byte> bytes);

 private:
  bool take_greeting(std::byte next);
  bool take_front(std::byte next);
  bool begin_part(std::uint64_t bytes);

  static constexpr std::size_t greeting_bytes = 64;

  MessageLimits limits_;
  std::size_t greeted_ = 0;           // bytes of the greeting that came
  std::array<std::byte, 9> front_{};  // of a frame: flags, then its size in 1 or 8 bytes
  std::size_t front_size_ = 0;
  std::uint64_t body_left_ = 0;
  std::uint64_t message_bytes_ = 0;
  std::uint64_t message_parts_ = 0;
};

}  // namespace qanat::wire
