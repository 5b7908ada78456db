#include "control/address.h"

namespace qanat::control {

std::string with_host(const std::string& address, std::string_view host) {
  for (const std::string_view wildcard : {"tcp://0.0.0.0:", "tcp://[::]:"}) {
    if (!address.starts_with(wildcard)) continue;
    const bool bare_ipv6 = host.find(':') != std::string_view::npos && !host.starts_with('[');
    std::string out = "tcp://";
    out += bare_ipv6 ? "[" : "";
    out += host;
    out += bare_ipv6 ? "]:" : ":";
    return out + address.substr(wildcard.size());
  }
  return address;
}

std::string seen_from_outside(const std::string& address, std::string_view peer_ip) {
  const bool local =
      peer_ip.empty() || peer_ip.starts_with("127.") || peer_ip == "::1" || peer_ip.starts_with("::ffff:127.");
  return local ? address : with_host(address, peer_ip);
}

wire::Endpoint bind_service(wire::Socket& socket, const std::string& service,
                            const std::vector<std::string>& addresses) {
  wire::Endpoint endpoint{service, {}};
  for (const auto& address : addresses) {
    endpoint.addresses.push_back(socket.bind(address.starts_with("tcp://") ? address : address + "-" + service));
  }
  return endpoint;
}

}  // namespace qanat::control
