// What one shard serves to a learner over ipc, with Atari rows: alone, while it saves all it holds, and beside a reader
// that asks for a thousand large batches and reads none. How long each draw took: median, 99.9th percentile, longest.
//
// bench_shard [--json] [--quick]: one line a figure; with --json an object with name, value and unit. Writes into the
// working directory, so that its disk is what is measured, and removes what it wrote. --quick: 300 MB of rows, not 3
// GB.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "cli/roles.h"
#include "core/error.h"
#include "replay/schema.h"

namespace {

using namespace qanat;
namespace fs = std::filesystem;

constexpr std::uint32_t chunk_rows = 64;
constexpr std::size_t row_bytes = std::size_t{84} * 84;
constexpr std::uint32_t items = 10;  // a request: what a learner asks for of such rows at a time
constexpr std::size_t ahead = 4;     // requests under way

struct Report {
  bool json = false;

  void line(const std::string& name, double value, const char* unit) const {
    std::printf(json ? "{\"name\": \"%s\", \"value\": %.6g, \"unit\": \"%s\"}\n" : "%-40s %12.4g %s\n", name.c_str(),
                value, unit);
    std::fflush(stdout);
  }
};

// Steps a role as its process would.
void drive(control::Role& role, const std::atomic<bool>& stop) {
  while (!stop && !role.finished()) {
    if (!role.step()) {
      const auto sockets = role.sockets();
      wire::wait(sockets, Milliseconds(20));
    }
  }
}

wire::EnvironmentSchema frames() { return {"frames", {{{"frame", DType::u8, {1, 84, 84}}, 0, 255}}, 4, false, 0}; }

class Bench {
 public:
  Bench(const fs::path& directory, std::uint64_t rows)
      : directory_(directory), log_({.who = "bench", .path = directory / "log", .to_stderr = false}) {
    config_.replay.shards = 1;
    config_.replay.capacity_steps = static_cast<std::int64_t>(rows);
    config_.replay.ratio = 0;
    config_.agent.stack = 4;
    config_.agent.n_step = 3;
    auto options = cli::head_options(config_, directory.string());
    options.bind = {address("head")};
    options.schema = {frames()};
    head_ = std::make_unique<control::Head>(head_context_, clock_, log_, options, nullptr);
    shard_ =
        cli::make_replay({shard_context_, clock_, log_, config_, member(wire::Role::replay, 50), {address("shard")}});
    learner_.emplace(context_, clock_, member(wire::Role::learner, 1));
    actor_.emplace(context_, clock_, member(wire::Role::actor, 70));
    threads_.emplace_back([this] { drive(*head_, stop_); });
    threads_.emplace_back([this] { drive(*shard_, stop_); });
    reader_ = connect("sample", {.identity = "learner-1", .check_parts = false});
    while (!learner_->joined() || !actor_->joined() || learner_->alive(wire::Role::replay).empty()) keep_alive();
    fill(rows);
  }
  ~Bench() {
    stop_ = true;
    for (auto& thread : threads_) thread.join();
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  // Draws until `done`; what they took, as `name`.
  template <class Done>
  void draw(const Report& report, const std::string& name, Done done) {
    std::vector<double> took;
    std::deque<Nanoseconds> asked;
    const auto begin = clock_.now();
    while (!done()) {
      keep_alive();
      while (asked.size() < ahead) {
        auto message = wire::encode(wire::SampleRequest{learner_->epoch(), ++request_, items, 0});
        if (reader_->send(message) != wire::Sent::yes) break;
        asked.push_back(clock_.now());
      }
      wire::Socket* const sockets[] = {reader_.get()};
      wire::wait(sockets, Milliseconds(20));
      while (const auto message = reader_->receive()) {
        if (message->type == static_cast<std::uint16_t>(wire::MessageType::save_reply)) {
          saved_ = wire::decode<wire::SaveReply>(*message);
        } else {
          took.push_back(seconds(clock_.now() - asked.front()));
          asked.pop_front();
        }
      }
    }
    const auto elapsed = seconds(clock_.now() - begin);
    const auto answered = took.size();
    while (!asked.empty()) {  // one that was never answered took until now at least
      const auto waited = seconds(clock_.now() - asked.front());
      while (reader_->receive()) asked.pop_front();
      if (took.empty()) took.push_back(waited);
    }
    std::sort(took.begin(), took.end());
    const auto quantile = [&](double q) {
      return 1e3 * took[static_cast<std::size_t>(q * static_cast<double>(took.size() - 1))];
    };
    report.line(name + "_draws", static_cast<double>(answered) * items / elapsed, "items/s");
    report.line(name + "_p50", quantile(0.5), "ms");
    report.line(name + "_p99.9", quantile(0.999), "ms");
    report.line(name + "_max", quantile(1), "ms");
  }

  void alone(const Report& report, const std::string& name, double for_seconds) {
    const auto end = clock_.now() + std::chrono::duration_cast<Nanoseconds>(Seconds(for_seconds));
    draw(report, name, [&] { return clock_.now() > end; });
  }

  void while_saving(const Report& report) {
    saved_.reset();
    auto message = wire::encode(wire::SaveRequest{learner_->epoch(), (directory_ / "saved").string()});
    if (reader_->send(message) != wire::Sent::yes) throw RunError("the request was not sent");
    const auto begin = clock_.now();
    draw(report, "saving", [&] { return saved_.has_value(); });
    if (!saved_->error.empty()) throw RunError("the save failed: " + saved_->error);
    report.line("saving_took", seconds(clock_.now() - begin), "s");
    fs::remove_all(directory_ / "saved");
  }

  void beside_a_reader_that_does_not_read(const Report& report, double for_seconds) {
    const auto idle = connect("sample", {.identity = "idle", .receive_queue = 1});
    for (std::uint64_t i = 0; i < 900; ++i) {
      auto message = wire::encode(wire::SampleRequest{learner_->epoch(), i, 64, 0});
      if (idle->send(message) != wire::Sent::yes) throw RunError("the request was not sent");
    }
    alone(report, "beside_idle", for_seconds);
  }

 private:
  [[nodiscard]] std::string address(const std::string& name) const { return "ipc://" + (directory_ / name).string(); }

  control::MemberOptions member(wire::Role role, std::uint64_t incarnation) {
    control::MemberOptions options;
    options.role = role;
    options.index = 0;
    options.incarnation = incarnation;
    options.head = {address("head")};
    return options;
  }

  std::unique_ptr<wire::Socket> connect(const std::string& service, wire::SocketOptions options) {
    auto socket = std::make_unique<wire::Socket>(context_, wire::SocketKind::dealer, std::move(options));
    socket->connect(address("shard-" + service));
    return socket;
  }

  void keep_alive() {
    learner_->step();
    actor_->step();
  }

  void fill(std::uint64_t rows) {
    const auto socket = connect("insert", {.identity = "actor-70"});
    const std::vector<std::uint8_t> pixels(chunk_rows * row_bytes, 7);
    const std::vector<std::int32_t> actions(chunk_rows, 1);
    const std::vector<float> rewards(chunk_rows, 1);
    std::uint64_t acknowledged = 0;
    for (std::uint64_t sequence = 0; acknowledged * chunk_rows < rows;) {
      keep_alive();
      if (sequence < acknowledged + 16 && sequence * chunk_rows < rows) {
        wire::ChunkHead chunk;
        chunk.incarnation = 70;
        chunk.sequence = sequence;
        chunk.first_row = sequence * chunk_rows;
        chunk.rows = chunk_rows;
        std::vector<std::uint8_t> flags(chunk_rows, 0);
        if (sequence == 0) flags[0] = replay::flag_first;
        std::vector<wire::Frame> parts;
        parts.push_back(wire::Frame::copy_of(std::span<const std::uint8_t>(flags)));
        parts.push_back(wire::Frame::copy_of(std::span<const float>(rewards)));
        parts.push_back(wire::Frame::copy_of(std::span<const std::int32_t>(actions)));
        parts.push_back(wire::Frame::copy_of(std::span<const std::uint8_t>(pixels)));
        auto message = wire::encode(wire::Insert{learner_->epoch(), {chunk}}, std::move(parts));
        if (socket->send(message) == wire::Sent::yes) ++sequence;
      }
      while (const auto answer = socket->receive()) {
        for (const auto& ack : wire::decode<wire::InsertAck>(*answer).acks) {
          if (ack.status == wire::AckStatus::refused) throw RunError("a chunk was refused: " + ack.reason);
          acknowledged = ack.next_sequence;
        }
      }
    }
  }

  fs::path directory_;
  cli::RunConfig config_;
  wire::Context head_context_, shard_context_, context_;  // as of processes of their own
  SteadyClock clock_;
  Logger log_;
  std::unique_ptr<control::Head> head_;
  std::unique_ptr<replay::ShardServer> shard_;
  std::optional<control::Member> learner_;
  std::optional<control::Member> actor_;
  std::unique_ptr<wire::Socket> reader_;
  std::uint64_t request_ = 0;
  std::optional<wire::SaveReply> saved_;
  std::atomic<bool> stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

int main(int argc, char** argv) {
  Report report;
  bool quick = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--json") report.json = true;
    if (flag == "--quick") quick = true;
  }
  std::string name = (fs::current_path() / "bench-shard-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) return 1;
  int code = 0;
  try {
    Bench bench(name, (quick ? 300'000'000 : 3'000'000'000) / row_bytes);
    bench.alone(report, "alone", quick ? 1 : 5);
    bench.while_saving(report);
    bench.alone(report, "again", quick ? 1 : 5);
    bench.beside_a_reader_that_does_not_read(report, quick ? 1 : 5);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_shard: %s\n", error.what());
    code = 1;
  }
  fs::remove_all(name);
  return code;
}
