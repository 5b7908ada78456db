// What socket tests share: endpoints, waiting, and a peer that speaks ZeroMQ without our rules.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>
#include <zmq.hpp>

#include "core/clock.h"
#include "core/error.h"
#include "core/rng.h"
#include "wire/socket.h"

namespace qanat::wire::testing {

// Long enough that only a message that never comes uses it up, also under sanitizers on a busy machine.
inline constexpr Milliseconds patience{20'000};

inline std::string ipc_path(const std::string& name) { return text("ipc:///tmp/qanat-test-", getpid(), '-', name); }

// The next message, waited for as long as a test may.
inline std::optional<Incoming> next(Socket& socket, Milliseconds limit = patience) {
  const SteadyClock clock;
  const auto end = clock.now() + limit;
  while (clock.now() < end) {
    if (auto incoming = socket.receive()) return incoming;
    Socket* const sockets[] = {&socket};
    wait(sockets, Milliseconds(20));
  }
  return std::nullopt;
}

// Takes in what comes until `done` or the patience is over; true when done.
template <class Done>
bool until(Socket& socket, Done done, std::vector<Incoming>* taken = nullptr) {
  const SteadyClock clock;
  const auto end = clock.now() + patience;
  while (!done()) {
    if (clock.now() > end) return false;
    if (auto incoming = next(socket, Milliseconds(20)); incoming && taken) taken->push_back(std::move(*incoming));
  }
  return true;
}

inline std::vector<std::byte> noise(Rng& rng, std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t at = 0; at < size; at += 8) {
    const auto word = rng.next();
    std::memcpy(bytes.data() + at, &word, std::min<std::size_t>(8, size - at));
  }
  return bytes;
}

inline Message message_of(std::uint16_t type, const std::string& head, std::vector<Frame> parts = {}) {
  Message message;
  message.type = type;
  for (const char c : head) message.head.push_back(static_cast<std::byte>(c));
  message.parts = std::move(parts);
  return message;
}

inline bool contains(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

inline std::string head_of(const Message& message) {
  return {reinterpret_cast<const char*>(message.head.data()), message.head.size()};
}

// A DEALER that sends whatever it likes.
class RawPeer {
 public:
  RawPeer(const std::string& endpoint, const std::string& identity) : socket_(context_, zmq::socket_type::dealer) {
    socket_.set(zmq::sockopt::linger, 1000);
    socket_.set(zmq::sockopt::routing_id, identity);
    socket_.connect(endpoint);
  }
  void send(const std::vector<std::string>& frames) {
    for (std::size_t i = 0; i < frames.size(); ++i) {
      socket_.send(zmq::buffer(frames[i]), i + 1 < frames.size() ? zmq::send_flags::sndmore : zmq::send_flags::none);
    }
  }
  zmq::socket_t& socket() { return socket_; }

 private:
  zmq::context_t context_;
  zmq::socket_t socket_;
};

}  // namespace qanat::wire::testing
