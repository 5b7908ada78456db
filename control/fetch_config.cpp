#include "control/fetch_config.h"

#include "core/error.h"

namespace qanat::control {

wire::ConfigReply fetch_config(wire::Context& context, const std::vector<std::string>& head, Seconds timeout) {
  const SteadyClock clock;
  const auto deadline = clock.now() + std::chrono::duration_cast<Nanoseconds>(timeout);
  std::vector<wire::Socket> sockets;
  for (const auto& address : head) {
    sockets.emplace_back(context, wire::SocketKind::dealer);
    sockets.back().connect(address);
    auto question = wire::encode(wire::ConfigGet{});
    (void)sockets.back().send(question);  // waits in the socket until the connection stands
  }
  std::vector<wire::Socket*> all;
  for (auto& socket : sockets) all.push_back(&socket);
  while (clock.now() < deadline) {
    wire::wait(all, Milliseconds(100));
    for (auto* socket : all) {
      if (const auto message = socket->receive()) return wire::decode<wire::ConfigReply>(*message);
    }
  }
  std::string addresses;
  for (const auto& address : head) addresses += " " + address;
  throw SystemError(text("no head answered within ", timeout.count(), " s at", addresses,
                         "; is the run there, and is the address the one that `head` or `train` printed?"));
}

}  // namespace qanat::control
