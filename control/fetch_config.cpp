#include "control/fetch_config.h"

#include "core/error.h"

namespace qanat::control {

std::optional<wire::ConfigReply> fetch_config(wire::Context& context, const std::vector<std::string>& head,
                                              const Patience& patience, Logger& log) {
  const SteadyClock clock;
  const auto begin = clock.now();
  std::vector<wire::Socket> sockets;
  std::vector<wire::Socket*> all;
  std::string addresses;
  for (const auto& address : head) {
    sockets.emplace_back(context, wire::SocketKind::dealer);
    sockets.back().connect(address);
    addresses += (addresses.empty() ? "" : ", ") + address;
  }
  for (auto& socket : sockets) all.push_back(&socket);
  auto ask_at = begin;
  while (clock.now() - begin < patience.limit) {
    if (patience.goes_on && !patience.goes_on()) return std::nullopt;
    if (clock.now() >= ask_at) {
      // Again each time, for a head that was restarted has not heard the first question.
      for (auto* socket : all) {
        auto question = wire::encode(wire::ConfigGet{});
        (void)socket->send(question);  // waits in the socket until the connection stands
      }
      if (ask_at > begin) {
        log.warn("no head has answered for ", static_cast<int>(seconds(clock.now() - begin)), " s at ", addresses,
                 ": waiting, until ", patience.limit.count(), " s are over (--give-up)");
      }
      ask_at = clock.now() + std::chrono::duration_cast<Nanoseconds>(patience.say_after);
    }
    wire::wait(all, Milliseconds(100));
    for (auto* socket : all) {
      if (const auto message = socket->receive()) return wire::decode<wire::ConfigReply>(*message);
    }
  }
  throw SystemError(text("no head answered within ", patience.limit.count(), " s at ", addresses,
                         "; is the run there, and is the address the one that `head` or `train` printed?"));
}

}  // namespace qanat::control
