// A service that comes back where it was, as after a restart: the connections to it break, and can be made anew.
#pragma once

#include <string>
#include <thread>

#include "core/clock.h"
#include "core/error.h"
#include "wire/socket.h"

namespace qanat::test {

// ZeroMQ gives an address back a moment after its socket was closed.
inline void rebind(wire::Socket& socket, wire::Context& context, wire::SocketKind kind, const std::string& address) {
  socket = wire::Socket(context, kind);
  for (int tries = 0;; ++tries) {
    try {
      socket.bind(address);
      return;
    } catch (const SystemError&) {
      if (tries == 2000) throw;
      std::this_thread::sleep_for(Milliseconds(10));
    }
  }
}

}  // namespace qanat::test
