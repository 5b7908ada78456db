// Two threads, a socket each: throughput, order, and signals at the worst moments. Run under TSan.
#include <sys/time.h>

#include <csignal>
#include <cstring>
#include <thread>

#include "core/error.h"
#include "sockets.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::wire;
using namespace qanat::wire::testing;

namespace {

// Sends `count` messages of `bytes` each from a thread of its own and receives them here, in order and whole.
// Returns bytes a second.
double stream(const std::string& bind_to, int count, std::size_t bytes) {
  Context context;
  Socket server(context, SocketKind::router, {.identity = {}, .receive_queue = 8});
  const auto endpoint = server.bind(bind_to);
  const SteadyClock clock;
  const auto start = clock.now();
  std::thread sender([&] {
    Socket client(context, SocketKind::dealer, {.identity = "sender", .send_queue = 8, .linger = Milliseconds(10'000)});
    client.connect(endpoint);
    for (int i = 0; i < count; ++i) {
      std::vector<Frame> parts;
      parts.push_back(Frame(bytes));
      std::memset(parts.back().mutable_bytes().data(), i, bytes);
      parts.push_back(Frame::copy_of(std::as_bytes(std::span(&i, 1))));
      auto message = message_of(1, std::to_string(i), std::move(parts));
      while (client.send(message) == Sent::would_block) std::this_thread::yield();
    }
  });
  int wrong = 0;
  int received = 0;
  for (; received < count; ++received) {
    const auto heard = next(server);
    if (!heard) break;
    wrong += head_of(*heard) != std::to_string(received) || heard->parts.size() != 2 ||
             heard->parts[0].size() != bytes || heard->parts[0].bytes().back() != static_cast<std::byte>(received);
  }
  sender.join();
  CHECK(received == count);
  CHECK(wrong == 0);
  CHECK(server.traffic().refused == 0);
  return static_cast<double>(bytes) * count / seconds(clock.now() - start);
}

void ignore_signal(int) {}

// SIGALRM every 200 microseconds, handled without restarting what it interrupts.
class Alarms {
 public:
  Alarms() {
    struct sigaction action {};
    action.sa_handler = ignore_signal;
    sigaction(SIGALRM, &action, &before_);
    const itimerval often{{0, 200}, {0, 200}};
    setitimer(ITIMER_REAL, &often, nullptr);
  }
  ~Alarms() {
    const itimerval never{};
    setitimer(ITIMER_REAL, &never, nullptr);
    sigaction(SIGALRM, &before_, nullptr);
  }

 private:
  struct sigaction before_ {};
};

}  // namespace

TEST_CASE("threads: a stream of 1 MB messages arrives whole and in order over every transport") {
  for (const auto& endpoint : {std::string("inproc://stream"), ipc_path("stream"), std::string("tcp://127.0.0.1:*")}) {
    INFO(endpoint);
    const double rate = stream(endpoint, 200, 1 << 20);
    // Measured 1 to 3 GB/s; a tenth of the slowest, and again for sanitizers and busy machines, is a broken socket.
    CHECK(rate > 10e6);
    WARN(endpoint << ": " << rate / 1e9 << " GB/s");
  }
}

TEST_CASE("threads: many small messages arrive in order") { stream("tcp://127.0.0.1:*", 20'000, 8); }

TEST_CASE("threads: signals neither tear messages nor look like failed sockets") {
  const Alarms alarms;
  stream("tcp://127.0.0.1:*", 20'000, 8);
}
