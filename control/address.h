// Which address to publish and to use for a socket that is bound to every interface.
#pragma once

#include <string>
#include <string_view>

namespace qanat::control {

// "tcp://HOST:PORT" for "tcp://0.0.0.0:PORT" or "tcp://[::]:PORT"; other addresses as they are.
[[nodiscard]] std::string with_host(const std::string& address, std::string_view host);

// What others may connect to, given the IP address from which the owner of `address` was seen. An owner on this
// machine (loopback, or no IP because it came over ipc) keeps its wildcard: the asker fills in how it reaches us.
[[nodiscard]] std::string seen_from_outside(const std::string& address, std::string_view peer_ip);

}  // namespace qanat::control
