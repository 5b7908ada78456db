// Somebody who never joined: sends each kind of message to each address, with each field in turn out of range.
//
// usage: acceptance_stranger SEED EPOCH RUN_DIR ADDRESS...
// Says how much it sent; whether anybody suffered is for the caller to see.
#include <array>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <thread>
#include <type_traits>

#include "core/error.h"
#include "core/rng.h"
#include "tests/wire/random_heads.h"
#include "wire/socket.h"

using namespace qanat;
using namespace qanat::wire;
using namespace qanat::wire::testing;

namespace {

// Walks over a head's fields by its own serialize(): all plausible but one, the `field`-th, which is out of range in
// its `way`-th manner.
class Liar {
 public:
  Liar(std::uint64_t number, std::string text, int field, int way)
      : number_(number), text_(std::move(text)), field_(field), way_(way) {}

  template <class... Fields>
  void operator()(Fields&... fields) {
    (put(fields), ...);
  }
  [[nodiscard]] int fields() const { return seen_; }

  static constexpr int ways = 7;

 private:
  bool lies() { return seen_++ == field_; }

  template <class T>
  requires std::is_integral_v<T>
  void put(T& value) {
    using Limits = std::numeric_limits<T>;
    const T lies_of[ways] = {0,
                             Limits::max(),
                             Limits::min(),
                             static_cast<T>(-1),
                             static_cast<T>(1'000'000'000),
                             static_cast<T>(std::uint64_t{1} << 53),
                             static_cast<T>(number_ + 1)};
    value = lies() ? lies_of[way_] : static_cast<T>(number_);
  }
  void put(bool& value) { value = lies() ? way_ % 2 == 0 : true; }
  template <class T>
  requires std::is_floating_point_v<T>
  void put(T& value) {
    using Limits = std::numeric_limits<T>;
    const T lies_of[ways] = {Limits::quiet_NaN(), Limits::infinity(), -Limits::infinity(),
                             Limits::max(),       Limits::lowest(),   T(-1),
                             Limits::denorm_min()};
    value = lies() ? lies_of[way_] : T(1);
  }
  void put(std::string& value) {
    const std::string lies_of[ways] = {"",
                                       std::string(70'000, 'x'),
                                       std::string("\0\n\x1b[2J", 6),
                                       "../../../../tmp/qanat-stranger",
                                       "/",
                                       "tcp://1::2::3:99999999",
                                       "\xff\xfe%s%n"};
    value = lies() ? lies_of[way_] : text_;
  }
  template <class T>
  requires std::is_enum_v<T>
  void put(T& value) {
    const auto lie = way_ == 0 ? 255 : way_;
    value = static_cast<T>(lies() ? lie : 1);
  }
  template <class T>
  void put(std::vector<T>& list) {
    if (!lies()) {
      list.resize(1);
    } else {
      list.resize(way_ == 0 ? 0 : way_ == 1 ? 2'000 : static_cast<std::size_t>(way_));
    }
    // The elements of a long list are all alike, so they count once.
    const int before = seen_;
    int after = before;
    for (auto& element : list) {
      seen_ = before;
      put(element);
      after = seen_;
    }
    seen_ = after;
  }
  template <class T, std::size_t N>
  void put(std::array<T, N>& list) {
    for (auto& element : list) put(element);
  }
  template <class A, class B>
  void put(std::pair<A, B>& both) {
    put(both.first);
    put(both.second);
  }
  template <class T>
  requires std::is_class_v<T>
  void put(T& value) { value.serialize(*this); }

  std::uint64_t number_;
  std::string text_;
  int field_;
  int way_;
  int seen_ = 0;
};

class Stranger {
 public:
  Stranger(std::uint64_t seed, std::uint64_t epoch, std::string run_dir)
      : rng_(seed), epoch_(epoch), place_(std::move(run_dir) + "/checkpoints/step-stranger") {}

  void talk_to(const std::string& address) {
    socket_ = std::make_unique<Socket>(context_, SocketKind::dealer,
                                       SocketOptions{.identity = text("stranger-", rng_.next()), .send_queue = 10'000});
    socket_->connect(address);
    for_every_head([&]<class Head>() { tell_all<Head>(); });
    // What waits in the queue is sent while answers are read.
    for (int i = 0; i < 50; ++i) rest();
    socket_.reset();
  }

  [[nodiscard]] std::uint64_t sent() const { return sent_; }
  [[nodiscard]] std::uint64_t answers() const { return answers_; }

 private:
  template <class Head>
  void tell_all() {
    Head probe;
    Liar counting(1, place_, -1, 0);
    probe.serialize(counting);
    for (int field = -1; field < counting.fields(); ++field) {
      for (int way = 0; way < (field < 0 ? 1 : Liar::ways); ++way) {
        // The epoch is known to all, and as a count it is small. Who joins does so as somebody new each time.
        const bool joins = std::is_same_v<Head, Join>;
        Liar liar(joins ? rng_.next() >> 1 : epoch_, place_, field, way);
        Head head;
        head.serialize(liar);
        auto message = encode(head, parts());
        if (socket_->send(message) == Sent::yes) ++sent_;
        if (sent_ % 50 == 0) rest();
      }
    }
  }

  // None, a few, or as many as a message of rows has.
  std::vector<Frame> parts() {
    constexpr std::array<std::size_t, 5> counts{0, 1, 2, 5, 7};
    std::vector<Frame> out(counts[rng_.below(counts.size())]);
    for (auto& part : out) {
      std::vector<std::uint32_t> words(std::size_t{1} << rng_.below(10));
      for (auto& word : words) word = static_cast<std::uint32_t>(rng_.next());
      part = Frame::copy_of(std::span<const std::uint32_t>(words));
    }
    return out;
  }

  void rest() {
    answers_ += socket_->receive_all().size();
    std::this_thread::sleep_for(Milliseconds(2));
  }

  Context context_;
  Rng rng_;
  std::uint64_t epoch_;
  std::string place_;
  std::unique_ptr<Socket> socket_;
  std::uint64_t sent_ = 0;
  std::uint64_t answers_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: acceptance_stranger SEED EPOCH RUN_DIR ADDRESS...\n");
    return 2;
  }
  Stranger stranger(std::strtoull(argv[1], nullptr, 10), std::strtoull(argv[2], nullptr, 10), argv[3]);
  for (int i = 4; i < argc; ++i) stranger.talk_to(argv[i]);
  std::printf("sent %llu messages, %llu answers\n", static_cast<unsigned long long>(stranger.sent()),
              static_cast<unsigned long long>(stranger.answers()));
  return stranger.sent() == 0;
}
