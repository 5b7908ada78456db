// Connections beyond what the descriptors suffice for.
#include "wire/accept.h"

#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <vector>

#include "core/files.h"
#include "core/limits.h"
#include "dial.h"
#include "sockets.h"
#include "tests/support/catch.h"
#include "wire/messages.h"

using namespace qanat;
using namespace qanat::wire;
using namespace qanat::wire::testing;

namespace {

// Strangers in a process of their own, since descriptors are counted by process: `count` connections that say nothing.
// The number of those that were closed goes to `report`; then the process waits to be killed.
[[noreturn]] void be_idle(const std::string& endpoint, int count, int report) {
  std::vector<pollfd> all;
  for (int i = 0; i < count; ++i) all.push_back({dial(endpoint), POLLIN, 0});
  int closed = 0;
  // Those that are kept say hello at once; the others' streams end.
  for (auto& one : all) {
    char byte = 0;
    closed += one.fd < 0 || poll(&one, 1, 10'000) != 1 || recv(one.fd, &byte, 1, 0) != 1;
  }
  [[maybe_unused]] const auto put = write(report, &closed, sizeof closed);
  for (;;) pause();
}

void refuses_beyond(const std::string& address) {
  constexpr int strangers = 300;
  int report[2];
  int begin[2];
  REQUIRE(pipe(report) == 0);
  REQUIRE(pipe(begin) == 0);
  char where[256] = {};
  const auto child = fork();  // before there are threads
  REQUIRE(child >= 0);
  if (child == 0) {
    if (read(begin[0], where, sizeof where) <= 0) _exit(1);
    be_idle(where, strangers, report[1]);
  }
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit few{200, before.rlim_max};
  REQUIRE(setrlimit(RLIMIT_NOFILE, &few) == 0);
  {
    Context context;
    Socket server(context, SocketKind::router);
    Socket honest(context, SocketKind::dealer, {.identity = "honest"});
    const auto endpoint = server.bind(address);
    honest.connect(endpoint);
    auto question = encode(Leave{9, "before"});
    REQUIRE(honest.send(question) == Sent::yes);
    REQUIRE(next(server));
    const auto refused_before = connections_refused();
    REQUIRE(write(begin[1], endpoint.c_str(), endpoint.size() + 1) > 0);
    int closed = 0;
    REQUIRE(read(report[0], &closed, sizeof closed) == sizeof closed);
    CHECK(closed > strangers - 200);
    CHECK(closed < strangers);
    CHECK(connections_refused() - refused_before >= static_cast<std::uint64_t>(closed));
    // The reserve is there, and who was connected before is heard.
    require_descriptors(descriptor_reserve(200), "files");
    question = encode(Leave{9, "after"});
    REQUIRE(honest.send(question) == Sent::yes);
    const auto heard = next(server);
    REQUIRE(heard);
    CHECK(decode<Leave>(*heard).reason == "after");
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  for (const int fd : {report[0], report[1], begin[0], begin[1]}) close(fd);
  setrlimit(RLIMIT_NOFILE, &before);
}

}  // namespace

TEST_CASE("accept: connections over tcp beyond the reserve for files are closed, and nothing else suffers") {
  refuses_beyond("tcp://127.0.0.1:*");
}

TEST_CASE("accept: over ipc too, where running out of descriptors would end the process") {
  const auto path = std::filesystem::temp_directory_path() / text("qanat-accept-", getpid());
  refuses_beyond("ipc://" + path.string());
  std::filesystem::remove(path);
}
