// Which address to publish and to use for a socket that is bound to every interface.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "wire/messages.h"

namespace qanat::control {

// "tcp://HOST:PORT" for "tcp://0.0.0.0:PORT" or "tcp://[::]:PORT"; other addresses as they are.
[[nodiscard]] std::string with_host(const std::string& address, std::string_view host);

// What others may connect to, given the IP address from which the owner of `address` was seen. An owner on this
// machine (loopback, or no IP because it came over ipc) keeps its wildcard: the asker fills in how it reaches us.
[[nodiscard]] std::string seen_from_outside(const std::string& address, std::string_view peer_ip);

// Binds a socket to all of `addresses` as one service, and says where it really listens. ipc and inproc names get
// "-SERVICE" behind them, so that several services may share an address; tcp picks a port for each.
[[nodiscard]] wire::Endpoint bind_service(wire::Socket& socket, const std::string& service,
                                          const std::vector<std::string>& addresses);

}  // namespace qanat::control
