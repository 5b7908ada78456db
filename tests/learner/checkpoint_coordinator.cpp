// A checkpoint's way from the first file to the manifest, with shards and a head that only the test plays.
#include "learner/checkpoint_coordinator.h"

#include <future>

#include "core/error.h"
#include "core/files.h"
#include "learner/best_weights.h"
#include "tests/core/temporary_directory.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::learner;
using Catch::Matchers::Contains;

namespace {

namespace fs = std::filesystem;

// Head and shards that answer when the test says so.
class Others : public SaveOthers {
 public:
  void save_head(const std::string& directory) override { head_asked.push_back(directory); }
  std::vector<ShardLife> save_shards(const std::string& directory) override {
    shards_asked.push_back(directory);
    return alive;
  }

  void save_shard_again(std::int64_t shard, const std::string&) override { asked_again.push_back(shard); }

  std::vector<ShardLife> alive{{0, 100}, {1, 101}};
  std::vector<std::string> head_asked;
  std::vector<std::string> shards_asked;
  std::vector<std::int64_t> asked_again;
};

struct World {
  explicit World(std::size_t keep = 2) {
    make_directories(checkpoints);
    CoordinatorOptions options;
    options.checkpoints = checkpoints;
    options.commit = "abc";
    options.keep = keep;
    saves.emplace(clock, log, options, others);
  }

  // What the learner writes; `own_error` makes it fail.
  std::vector<WrittenFile> write_own(const fs::path& directory) const {
    std::vector<WrittenFile> files{write_file_atomically(directory / "weights.bin", "weights")};
    if (!own_error.empty()) throw SystemError(own_error);
    files.push_back(write_file_atomically(directory / "learner.bin", "learner"));
    return files;
  }
  CheckpointCoordinator::WriteOwn own() {
    return [this](const fs::path& directory) { return write_own(directory); };
  }

  void begin(std::uint64_t updates) {
    saves->begin(updates, own());
    step();
  }
  CheckpointCoordinator::End end(std::uint64_t updates) {
    const auto end = saves->end(updates, [this] { return own(); });
    step();
    return end;
  }
  // Three rounds: the own part is there, all parts are, the manifest is.
  void step() {
    for (int round = 0; round < 3; ++round) {
      saves->finish_writing();
      saves->step(others.alive, 7);
    }
  }
  void pass(Seconds time) {
    clock.advance(std::chrono::duration_cast<Nanoseconds>(time));
    step();
  }

  void answer_head(const std::string& error = {}) {
    const auto directory = others.head_asked.back();
    wire::SaveReply reply{directory, error, {}};
    if (error.empty()) reply.files = {write_file_atomically(fs::path(directory) / "head.bin", "head")};
    saves->take_head(reply);
  }
  void answer_shard(std::int64_t shard, const std::string& error = {}) {
    const auto directory = others.shards_asked.back();
    wire::SaveReply reply{directory, error, {}};
    for (const auto* ending : {".bin", ".rng"}) {
      if (!error.empty()) break;
      reply.files.push_back(write_file_atomically(fs::path(directory) / text("shard-", shard, ending), "rows"));
    }
    saves->take_shard(shard, reply);
  }
  void answer_all() {
    const bool asked = others.shards_asked.size() > answered;
    answered = others.shards_asked.size();
    answer_head();
    for (const auto& shard : others.alive) {
      if (asked) answer_shard(shard.index);
    }
    step();
  }
  void complete(std::uint64_t updates) {
    begin(updates);
    answer_all();
    REQUIRE(saves->error().empty());
  }

  [[nodiscard]] std::vector<std::string> folders() const { return list_directory(checkpoints); }
  [[nodiscard]] Manifest manifest() const { return read_manifest(saves->newest()); }

  test::TemporaryDirectory place;
  fs::path checkpoints = place / "run" / "checkpoints";
  std::string own_error;
  std::size_t answered = 0;  // how often the shards were asked, as far as answer_all has seen
  VirtualClock clock;
  Logger log{LogOptions{"learner-0", {}, false, LogLevel::error}};
  Others others;
  std::optional<CheckpointCoordinator> saves;
};

}  // namespace

TEST_CASE("saving: a checkpoint is complete when all parts are there, and not before") {
  World world;
  world.begin(10);
  CHECK(world.saves->under_way());
  world.answer_head();
  world.answer_shard(1);
  world.step();
  CHECK(world.saves->newest().empty());
  world.answer_shard(0);
  world.step();
  CHECK(!world.saves->under_way());
  CHECK(world.saves->newest() == (world.checkpoints / checkpoint_name(10)).string());
  CHECK_NOTHROW(verify_checkpoint(world.saves->newest()));
  CHECK(world.manifest().files.size() == 7);
  CHECK(world.manifest().shards == 2);
  CHECK(world.manifest().env_steps == 7);
  CHECK(world.manifest().missing.empty());
}

TEST_CASE("saving: a shard that is lost during a save is done without, and the manifest says so") {
  World world;
  world.begin(10);
  write_file_atomically(world.checkpoints / checkpoint_name(10) / "shard-1.rng", "half of its part");
  world.answer_head();
  world.answer_shard(0);
  world.others.alive = {{0, 100}};
  world.step();
  REQUIRE(!world.saves->under_way());
  CHECK(world.saves->failed() == 0);
  const auto manifest = world.manifest();
  REQUIRE(manifest.missing.size() == 1);
  CHECK_THAT(manifest.missing[0], Contains("shard-1") && Contains("lost"));
  CHECK(manifest.shards == 2);
  CHECK_NOTHROW(verify_checkpoint(world.saves->newest()));
  CHECK(!fs::exists(fs::path(world.saves->newest()) / "shard-1.rng"));
}

TEST_CASE("saving: a shard whose place was taken by a new process is done without") {
  World world;
  world.begin(10);
  world.answer_head();
  world.answer_shard(0);
  world.others.alive = {{0, 100}, {1, 999}};
  world.step();
  REQUIRE(!world.saves->under_way());
  CHECK(world.manifest().missing.size() == 1);
}

TEST_CASE("saving: a shard that lives is waited for, however long its disk takes") {
  World world;
  world.begin(10);
  world.answer_head();
  world.answer_shard(0);
  for (int minute = 0; minute < 600; ++minute) world.pass(Seconds(60));
  CHECK(world.saves->under_way());
  CHECK(world.saves->failed() == 0);
  world.answer_shard(1);
  world.step();
  CHECK(world.manifest().missing.empty());
}

TEST_CASE("saving: while the disk takes its time, the owner goes on") {
  World world;
  std::promise<void> disk;
  world.saves->begin(10, [&, ready = disk.get_future().share()](const fs::path& directory) {
    ready.wait();
    return world.write_own(directory);
  });
  for (int i = 0; i < 100; ++i) {  // none of these waits, or the test would hang
    world.clock.advance(std::chrono::seconds(10));
    world.saves->step(world.others.alive, 7);
  }
  CHECK(world.saves->under_way());
  CHECK(world.others.head_asked.empty());
  disk.set_value();
  world.step();
  world.answer_all();
  CHECK(!world.saves->newest().empty());
}

TEST_CASE("saving: a shard that has not answered is asked again, one that has is not") {
  World world;
  world.begin(10);
  world.answer_head();
  world.answer_shard(0);
  world.pass(Seconds(9));
  CHECK(world.others.asked_again.empty());
  world.pass(Seconds(1));
  world.pass(Seconds(5));
  CHECK(world.others.asked_again == std::vector<std::int64_t>{1});
  CHECK(world.others.head_asked.size() == 1);
}

TEST_CASE("saving: a head that has not answered is asked again") {
  World world;
  world.begin(10);
  world.answer_shard(0);
  world.answer_shard(1);
  world.pass(Seconds(9));
  CHECK(world.others.head_asked.size() == 1);
  world.pass(Seconds(1));
  REQUIRE(world.others.head_asked.size() == 2);
  CHECK(world.others.head_asked[0] == world.others.head_asked[1]);
  world.answer_head();
  world.step();
  CHECK(!world.saves->newest().empty());
}

TEST_CASE("saving: a save that fails removes its folder, keeps the one before, and is tried again later") {
  World world;
  world.complete(10);
  world.own_error = "no space left";
  world.begin(20);
  CHECK(!world.saves->under_way());
  CHECK(world.folders() == std::vector<std::string>{checkpoint_name(10)});
  CHECK(world.saves->error() == "no space left");
  CHECK(world.saves->failed() == 1);
  CHECK(world.saves->newest() == (world.checkpoints / checkpoint_name(10)).string());
  CHECK(!world.saves->retry_due());
  world.pass(Seconds(5));
  CHECK(world.saves->retry_due());
  world.own_error.clear();
  world.complete(21);
  CHECK(world.saves->error().empty());
  CHECK(world.saves->failed() == 1);
  CHECK(!world.saves->retry_due());
  CHECK(world.folders() == std::vector<std::string>{checkpoint_name(10), checkpoint_name(21)});
}

TEST_CASE("saving: the pauses between attempts grow to a minute, and how long it has failed is counted") {
  World world;
  world.own_error = "read-only";
  CHECK(world.saves->failing_for() == Seconds(0));
  for (const double pause : {5, 10, 20, 40, 60, 60}) {
    world.begin(10);
    world.pass(Seconds(pause - 0.5));
    CHECK(!world.saves->retry_due());
    world.pass(Seconds(0.5));
    CHECK(world.saves->retry_due());
  }
  CHECK(world.saves->failing_for() == Seconds(195));
  world.own_error.clear();
  world.complete(11);
  CHECK(world.saves->failing_for() == Seconds(0));
}

TEST_CASE("saving: what saves of a killed process left is removed when there may be no room") {
  World world;
  world.complete(10);
  make_directories(world.checkpoints / checkpoint_name(500));
  write_file_atomically(world.checkpoints / checkpoint_name(500) / "shard-0.bin", "a lot");
  world.own_error = "no space left";
  world.begin(20);
  CHECK(world.folders() == std::vector<std::string>{checkpoint_name(10)});
}

TEST_CASE("saving: a second failure leaves only the newest of those before, to make room") {
  World world;
  world.complete(10);
  world.complete(20);
  world.own_error = "no space left";
  world.begin(30);
  CHECK(world.folders().size() == 2);
  world.begin(30);
  CHECK(world.folders() == std::vector<std::string>{checkpoint_name(20)});
}

TEST_CASE("saving: a shard's failed part fails the save once, then it is done without, then the replay is left out") {
  World world;
  world.complete(5);
  world.begin(10);
  world.answer_head();
  world.answer_shard(0, "its disk is full");
  world.step();
  CHECK(world.saves->under_way());  // the other shard may still write
  world.answer_shard(1);
  world.step();
  CHECK(!world.saves->under_way());
  CHECK_THAT(world.saves->error(), Contains("replay-0: its disk is full"));
  CHECK(world.folders() == std::vector<std::string>{checkpoint_name(5)});

  world.begin(10);
  world.answer_head("no room for this either");
  world.answer_shard(0, "its disk is full");
  world.answer_shard(1);
  world.step();
  CHECK_THAT(world.saves->error(), Contains("head: no room"));

  const auto asked = world.others.shards_asked.size();
  world.begin(10);
  CHECK(world.others.shards_asked.size() == asked);
  world.answer_head();
  world.step();
  REQUIRE(world.saves->error().empty());
  CHECK(world.manifest().files.size() == 3);
  CHECK_THAT(world.manifest().missing.at(0), Contains("replay: left out after 2 failed saves"));

  world.complete(20);  // with the replay again
  CHECK(world.manifest().missing.empty());
}

TEST_CASE("saving: the second attempt does without the part that fails again") {
  World world;
  for (int attempt = 0; attempt < 2; ++attempt) {
    world.begin(10);
    world.answer_head();
    world.answer_shard(0, "its disk is full");
    world.answer_shard(1);
    world.step();
  }
  REQUIRE(world.saves->error().empty());
  CHECK(world.manifest().missing == std::vector<std::string>{"shard-0: its disk is full"});
  CHECK_NOTHROW(verify_checkpoint(world.saves->newest()));
}

TEST_CASE("saving: answers to a save that is over change nothing") {
  World world;
  world.begin(10);
  world.answer_head();
  world.answer_shard(0);
  world.others.alive = {{0, 100}};
  world.step();
  const auto files = world.manifest().files;
  world.answer_shard(1);
  world.answer_head("late");
  world.step();
  CHECK(world.manifest().files == files);
  CHECK(world.saves->failed() == 0);
}

TEST_CASE("saving: an answer that names other files than wanted, or comes twice, is no part") {
  World world;
  world.begin(10);
  world.answer_head();
  world.answer_head();
  world.answer_shard(0);
  world.answer_shard(0);
  world.saves->take_shard(7, {world.others.shards_asked.back(), {}, {}});
  world.saves->take_shard(1, {world.others.shards_asked.back(), {}, {{"shard-1.bin", 1, 1}}});
  world.step();
  CHECK_THAT(world.saves->error(), Contains("replay-1: names 1 files, wanted shard-1.bin and shard-1.rng"));
}

TEST_CASE("saving: the run's end is tried again until it is saved") {
  World world;
  using End = CheckpointCoordinator::End;
  world.own_error = "no space left";
  CHECK(world.end(30) == End::not_yet);
  CHECK(world.end(30) == End::not_yet);
  CHECK(world.saves->failed() == 1);  // the next attempt has its pause
  world.own_error.clear();
  world.pass(Seconds(1));
  CHECK(world.end(30) == End::not_yet);
  CHECK(world.saves->under_way());
  CHECK(world.end(30) == End::not_yet);
  world.answer_all();
  CHECK(world.end(30) == End::saved);
  CHECK(world.folders() == std::vector<std::string>{checkpoint_name(30)});
}

TEST_CASE("saving: a save under way at the run's end is waited for, and the last one comes after it") {
  World world;
  using End = CheckpointCoordinator::End;
  world.begin(20);
  CHECK(world.end(30) == End::not_yet);
  world.answer_all();
  CHECK(world.end(30) == End::not_yet);
  world.answer_all();
  CHECK(world.end(30) == End::saved);
  CHECK(world.folders() == std::vector<std::string>{checkpoint_name(20), checkpoint_name(30)});
}

TEST_CASE("saving: a run's end that cannot be saved fails after three attempts, the last without the replay") {
  World world;
  using End = CheckpointCoordinator::End;
  world.complete(10);
  auto end = End::not_yet;
  for (int second = 0; second < 10 && end == End::not_yet; ++second) {
    end = world.end(30);
    if (world.saves->under_way()) {
      world.answer_head("full");
      if (world.saves->failed() < 2) world.answer_shard(0);
      if (world.saves->failed() < 2) world.answer_shard(1);
    }
    world.pass(Seconds(1));
  }
  CHECK(end == End::failed);
  CHECK(world.saves->failed() == 3);
  CHECK(world.saves->error() == "head: full");
  CHECK(world.folders() == std::vector<std::string>{checkpoint_name(10)});
  CHECK(world.saves->newest() == (world.checkpoints / checkpoint_name(10)).string());
}

TEST_CASE("saving: where the run's folder is gone or is none, saving fails and nothing is made anew") {
  World world;
  world.complete(10);
  SECTION("gone") { fs::remove_all(world.place / "run"); }
  SECTION("a file") {
    fs::remove_all(world.checkpoints);
    write_file_atomically(world.checkpoints, "a file");
  }
  for (int attempt = 0; attempt < 3; ++attempt) world.begin(20);
  CHECK(world.saves->failed() == 3);
  CHECK_THAT(world.saves->error(), Contains(world.checkpoints.string()));
  CHECK(!fs::is_directory(world.checkpoints));
}

TEST_CASE("saving: a folder that vanishes under a save is a failed save") {
  World world;
  world.begin(10);
  world.answer_head();
  world.answer_shard(0);
  world.answer_shard(1);
  fs::remove_all(world.place / "run");
  world.step();
  CHECK(!world.saves->under_way());
  CHECK(world.saves->failed() == 1);
  CHECK(world.saves->newest().empty());
}

TEST_CASE("best weights: one that cannot be written is kept and written later") {
  World world;
  nn::NetworkConfig config;
  config.hidden = {8};
  const auto network = nn::build_network(config, {"observation", DType::f32, {4}}, 1, 1, 2);
  const std::vector<float> first(nn::parameter_count(network), 1.0F);
  const std::vector<float> second(nn::parameter_count(network), 2.0F);
  BestWeights best(world.clock, world.log, world.checkpoints, network);
  const auto settle = [&] {
    best.step();
    best.finish_writing();
    best.step();
  };
  best.offer({first, {}}, {10, 1.5, 0, 5});
  settle();
  CHECK(best.written());
  const auto away = world.place / "away";
  fs::rename(world.place / "run", away);
  best.offer({second, {}}, {20, 2.5, 0, 5});
  settle();
  CHECK(!best.written());
  best.offer({first, {}}, {30, 2.0, 0, 5});  // worse
  world.clock.advance(std::chrono::seconds(6));
  settle();
  CHECK(!best.written());
  CHECK(!fs::exists(world.place / "run"));
  fs::rename(away, world.place / "run");
  settle();
  CHECK(!best.written());  // not yet
  world.clock.advance(std::chrono::seconds(6));
  settle();
  CHECK(best.written());
  CHECK(read_best(world.checkpoints)->mean == 2.5);
  CHECK(load_weights(world.checkpoints / "best" / "weights.bin", network).parameters == second);
  CHECK(BestWeights(world.clock, world.log, world.checkpoints, network).best()->updates == 20);
}
