// A bare connection to an endpoint, for peers that are no ZeroMQ.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstdint>
#include <string>

namespace qanat::wire::testing {

// "tcp://host:port", at the loopback address whatever the host, or "ipc://path". The descriptor, the caller's; -1:
// nobody answers there.
inline int dial(const std::string& endpoint) {
  if (endpoint.starts_with("ipc://")) {
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    endpoint.copy(to.sun_path, sizeof to.sun_path - 1, 6);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0 ? fd : -1;
  }
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(static_cast<std::uint16_t>(std::stoi(endpoint.substr(endpoint.rfind(':') + 1))));
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  return connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0 ? fd : -1;
}

}  // namespace qanat::wire::testing
