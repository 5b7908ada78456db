// Hosts as they are written (numbers, names, an interface's name) and as ZeroMQ takes them.
//
// Thread safe; looks names up as the system does, which can take seconds.
#pragma once

#include <cstdint>
#include <string>

namespace qanat::wire {

// What may stand in tcp://HOST:PORT to listen on `host`: names become the first IPv4 address of theirs, else the first
// IPv6 address in brackets; "*" and interfaces' names stay. Throws ConfigError when there is no such host.
[[nodiscard]] std::string host_to_bind(const std::string& host);

// Throws ConfigError when this machine cannot listen there: another machine's address, or a port (other than 0) in use.
void check_listening(const std::string& host, std::uint16_t port);

// tcp://HOST:PORT as a socket can connect to it: as it is where the host has an IPv4 address, else with its IPv6
// address; other endpoints as they are. Throws ConfigError when there is no such host.
[[nodiscard]] std::string endpoint_to_connect(const std::string& endpoint);

}  // namespace qanat::wire
