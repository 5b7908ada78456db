// The socket factory: the one place where ZeroMQ sockets are made, so that limits hold for all of them.
//
// Every socket gets a maximum frame size, a maximum part count, high-water marks, zero linger by default,
// and for ROUTERs mandatory routing and handover. What arrives is checked (magic, protocol, sizes, checksums)
// before anyone sees it; what fails is counted and dropped. A socket belongs to one thread. Signals are harmless:
// a call that one interrupts goes on.
//
// A network that swallows all packets closes a connection after five seconds; from then on a new one is tried at least
// every three seconds, so that it stands soon after the network is back. Without that, TCP would try again as late
// after the cut as it had lasted. What was under way is lost with the connection: whoever needs it sends it again.
//
// Endpoints are ZeroMQ's: inproc://name, ipc:///path, tcp://host:port, where IPv6 stands in brackets and wire/resolve.h
// helps with names. Binding to port 0 or * picks a free
// one; the real endpoint is what bind() returns.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/clock.h"
#include "wire/frame.h"

namespace qanat::wire {

// Raised when the meaning of any message changes; peers with another number are refused by name.
inline constexpr std::uint16_t protocol_version = 4;

// ZeroMQ's, "4.3.4".
[[nodiscard]] std::string library_version();

// A message before it is sent and after it was received: an encoded head and its bulk parts.
struct Message {
  std::uint16_t type = 0;
  std::vector<std::byte> head;
  std::vector<Frame> parts;
};

struct Incoming : Message {
  std::string peer;     // the sender's identity; empty on DEALER and SUB sockets
  std::string address;  // the sender's IP address when it came over tcp, else empty
};

enum class SocketKind { router, dealer, publisher, subscriber };
enum class Sent { yes, would_block, unreachable };

struct SocketOptions {
  // DEALER: how ROUTERs know it; at most 255 bytes. Of two with one identity the newer gets the replies, but over
  // tcp and ipc the older reconnects and takes it back: make them unique, for example by an incarnation.
  std::string identity;
  // A larger frame closes the sender's connection before it is in memory (tcp, ipc: ZeroMQ does it, uncounted) or is
  // refused (inproc).
  std::size_t max_frame_bytes = 256UL << 20;
  // Messages with more are dropped. Over tcp and ipc a connection is reset on which one does not end after thousands,
  // or after parts that weigh as much as two of the largest frames (wire/inflow.h).
  std::size_t max_parts = 40;
  int send_queue = 1000;     // messages a peer
  int receive_queue = 1000;  // messages a peer
  Milliseconds linger{0};    // how long closing waits for unsent messages
  // false: of the parts only the sizes are checked; the receiver asks Frame::intact() before it believes one.
  bool check_parts = true;
  // Counts its connections, see Socket::connections(); costs two descriptors.
  bool watched = false;
  // Which of the context's I/O threads serves its connections, by number, modulo their count; negative: ZeroMQ chooses,
  // and sockets that connect at the same time get the same one.
  int io_thread = -1;
};

struct Traffic {
  std::uint64_t messages_in = 0;
  std::uint64_t messages_out = 0;
  std::uint64_t bytes_in = 0;
  std::uint64_t bytes_out = 0;
  std::uint64_t refused = 0;  // arrived malformed, dropped; in messages_in as well

  Traffic& operator+=(const Traffic& other);
};

// One a process (or one for a whole lockstep run: inproc names are known within a context). Thread safe.
class Context {
 public:
  explicit Context(int io_threads = 1);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

 private:
  friend class Socket;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class Socket {
 public:
  // Throws SystemError when the system has no socket left or the options are not possible.
  Socket(Context& context, SocketKind kind, SocketOptions options = {});
  ~Socket();
  Socket(Socket&&) noexcept;
  Socket& operator=(Socket&&) noexcept;

  // How often a connection of a watched socket was made, over tcp and ipc. Another one than the first says that what
  // was under way may be lost, and that the peer can be reached again.
  [[nodiscard]] std::uint64_t connections();

  // Returns the real endpoint. Throws SystemError naming the endpoint and the reason.
  std::string bind(const std::string& endpoint);
  void connect(const std::string& endpoint);

  // Never blocks. The message is consumed only when the result is `yes`.
  [[nodiscard]] Sent send(Message& message);
  [[nodiscard]] Sent send_to(std::string_view peer, Message& message);  // ROUTER

  // The next well-formed message, or nothing when none is waiting (or many malformed ones stand before it: wait()
  // then returns at once). Never blocks.
  [[nodiscard]] std::optional<Incoming> receive();

  // All waiting messages, at most `limit`, ordered by peer; each peer's own order is kept. The order does not
  // depend on how deliveries of different peers interleaved, which lockstep mode relies on.
  [[nodiscard]] std::vector<Incoming> receive_all(std::size_t limit = 4096);

  // Counts a message that arrived whole but that its receiver could not use (InputError of decode).
  void refuse(std::string why);

  [[nodiscard]] const Traffic& traffic() const;
  // Why the last refused message was refused; empty when none was.
  [[nodiscard]] const std::string& last_refusal() const;

 private:
  friend void wait(std::span<Socket* const> sockets, Milliseconds timeout);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Returns when a socket has something to receive or the time is over.
void wait(std::span<Socket* const> sockets, Milliseconds timeout);

}  // namespace qanat::wire
