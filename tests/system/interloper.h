// A proxy between the clients of a ROUTER and that ROUTER, which may look at what passes, lose it, and cut connections.
//
// One socket a client towards the server, with the client's own identity, so that neither side knows. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "core/error.h"
#include "wire/socket.h"

namespace qanat::system_test {

class Interloper {
 public:
  // May change the message; false: it is lost.
  using Hook = std::function<bool(wire::Incoming&)>;

  // Listens on `front` and passes on to `server`, which may be named later.
  Interloper(wire::Context& context, const std::string& front, std::string server = {})
      : context_(context), server_(std::move(server)) {
    front_.emplace(context_, wire::SocketKind::router);
    address_ = front_->bind(front);
  }

  void set_server(const std::string& server) {
    if (server == server_) return;
    server_ = server;
    backs_.clear();
  }
  void on_request(Hook hook) { on_request_ = std::move(hook); }
  void on_answer(Hook hook) { on_answer_ = std::move(hook); }

  [[nodiscard]] const std::string& address() const { return address_; }
  [[nodiscard]] std::uint64_t cuts() const { return cuts_; }

  // Cuts the connections to the clients; they come back as soon as the address is free again.
  void cut_clients() {
    front_.reset();
    ++cuts_;
  }
  // Cuts the connections to the server, with what is under way on them.
  void cut_server() {
    backs_.clear();
    ++cuts_;
  }

  bool step() {
    if (!front_) listen_again();
    bool any = false;
    while (front_ && !server_.empty()) {  // the hook may cut it
      auto message = front_->receive();
      if (!message) break;
      any = true;
      if (!on_request_ || on_request_(*message)) (void)back(message->peer).send(*message);
    }
    for (auto& [peer, socket] : backs_) {
      while (auto message = socket.receive()) {
        any = true;
        message->peer = peer;
        if (on_answer_ && !on_answer_(*message)) continue;
        if (front_) (void)front_->send_to(peer, *message);  // a client that is cut off hears nothing
      }
    }
    return any;
  }

 private:
  wire::Socket& back(const std::string& peer) {
    const auto found = backs_.find(peer);
    if (found != backs_.end()) return found->second;
    auto& socket =
        backs_.emplace(peer, wire::Socket(context_, wire::SocketKind::dealer, {.identity = peer})).first->second;
    socket.connect(server_);
    return socket;
  }

  void listen_again() {
    front_.emplace(context_, wire::SocketKind::router);
    try {
      (void)front_->bind(address_);
    } catch (const SystemError&) {
      front_.reset();  // ZeroMQ closes in the background: the port is not free yet
    }
  }

  wire::Context& context_;
  std::string server_;
  std::string address_;
  std::optional<wire::Socket> front_;
  std::map<std::string, wire::Socket> backs_;
  Hook on_request_;
  Hook on_answer_;
  std::uint64_t cuts_ = 0;
};

}  // namespace qanat::system_test
