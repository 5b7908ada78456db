#include "wire/resolve.h"

#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>

#include "core/error.h"
#include "core/files.h"

namespace qanat::wire {
namespace {

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  [[nodiscard]] bool ipv6() const { return storage.ss_family == AF_INET6; }
  [[nodiscard]] std::string number() const {
    char host[NI_MAXHOST] = {};
    getnameinfo(get(), size, host, sizeof host, nullptr, 0, NI_NUMERICHOST);
    return ipv6() ? text('[', host, ']') : std::string(host);
  }
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

std::string without_brackets(const std::string& host) {
  return host.starts_with('[') && host.ends_with(']') ? host.substr(1, host.size() - 2) : host;
}

Address find(const std::string& written, const std::string& port) {
  const auto host = without_brackets(written);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  if (host.find(':') != std::string::npos) hints.ai_flags |= AI_NUMERICHOST;  // no name, so nobody need be asked
  addrinfo* list = nullptr;
  const int wrong = host.empty() ? EAI_NONAME : getaddrinfo(host.c_str(), port.c_str(), &hints, &list);
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(list, freeaddrinfo);
  std::optional<Address> found;
  for (const auto* one = list; one != nullptr; one = one->ai_next) {
    if (one->ai_family != AF_INET && (one->ai_family != AF_INET6 || found)) continue;
    found.emplace();
    std::memcpy(&found->storage, one->ai_addr, one->ai_addrlen);
    found->size = one->ai_addrlen;
    if (one->ai_family == AF_INET) break;
  }
  if (!found) {
    throw ConfigError(text("saw the host '", written, "', wanted an IPv4 or IPv6 address or a name that has one (",
                           wrong != 0 ? gai_strerror(wrong) : "it has neither", ")"));
  }
  return *found;
}

bool is_interface(const std::string& host) { return if_nametoindex(host.c_str()) != 0; }

}  // namespace

std::string host_to_bind(const std::string& host) {
  return host == "*" || is_interface(host) ? host : find(host, "0").number();
}

void check_listening(const std::string& host, std::uint16_t port) {
  if (is_interface(host)) return;  // ZeroMQ finds its address
  const auto address = find(host == "*" ? "0.0.0.0" : host, std::to_string(port));
  const FileDescriptor trial(socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int yes = 1;
  // As ZeroMQ does: an earlier run's connections may still be closing.
  setsockopt(trial.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (trial && bind(trial.get(), address.get(), address.size) == 0 && listen(trial.get(), 1) == 0) return;
  throw ConfigError(text("saw the host '", host, "' and port ", port, ", wanted an address of this machine",
                         port == 0 ? "" : " and a port that nobody uses", " (", std::strerror(errno),
                         "); 0.0.0.0 listens on all of this machine's"));
}

std::string endpoint_to_connect(const std::string& endpoint) {
  constexpr std::string_view scheme = "tcp://";
  const auto colon = endpoint.rfind(':');
  if (!endpoint.starts_with(scheme) || colon < scheme.size()) return endpoint;
  const auto address = find(endpoint.substr(scheme.size(), colon - scheme.size()), "0");
  return address.ipv6() ? text(scheme, address.number(), endpoint.substr(colon)) : endpoint;
}

}  // namespace qanat::wire
