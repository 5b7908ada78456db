#include "learner/checkpoint.h"

#include <cstdlib>
#include <fstream>

#include "core/checksum.h"
#include "core/error.h"
#include "core/files.h"
#include "tests/support/catch.h"
#include "tests/support/message_of.h"

using namespace qanat;
using namespace qanat::learner;

namespace {

namespace fs = std::filesystem;

class Directory {
 public:
  Directory() {
    std::string pattern = (fs::temp_directory_path() / "qanat-test-XXXXXX").string();
    path = mkdtemp(pattern.data());
  }
  ~Directory() { fs::remove_all(path); }
  fs::path path;
};

nn::NetworkSpec network(std::int64_t hidden, bool dueling = false) {
  nn::NetworkConfig config;
  config.hidden = {hidden};
  config.dueling = dueling;
  return nn::build_network(config, {"observation", DType::f32, {4}}, 1, 1, 2);
}

std::vector<float> random_parameters(const nn::NetworkSpec& spec, std::uint64_t seed) {
  std::vector<float> out(nn::parameter_count(spec));
  Rng rng(seed);
  nn::initialise(spec, rng, out);
  return out;
}

LearnerState random_state() {
  LearnerState state;
  const auto spec = network(8);
  state.online = random_parameters(spec, 1);
  state.target = random_parameters(spec, 2);
  state.optimizer = {std::byte{1}, std::byte{2}, std::byte{3}};
  state.updates = 123;
  state.trained_steps = 4567;
  state.skipped = 2;
  state.sampling = {1, 2, 3, 4};
  state.statistics = {std::byte{4}, std::byte{5}};
  return state;
}

void complete(const fs::path& checkpoints, std::uint64_t updates) {
  const auto directory = new_checkpoint(checkpoints, updates);
  make_directories(directory);
  std::vector<WrittenFile> files;
  for (const auto* name : {"weights.bin", "head.bin", "shard-0.bin", "shard-0.rng"})
    files.push_back(write_file_atomically(directory / name, text(name, " at ", updates)));
  complete_checkpoint(directory, {updates, updates * 10, 2, "abc", files});
}

// At once, not atomically: a test of every bit would flush the disk for minutes.
void write(const fs::path& file, std::span<const std::byte> bytes) {
  std::ofstream(file, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

void flip(const fs::path& file, std::size_t byte, int bit = 4) {
  auto bytes = read_file(file);
  bytes.at(byte) ^= std::byte{1} << bit;
  write(file, bytes);
}

}  // namespace

TEST_CASE("checkpoint: a learner's state comes back bit for bit") {
  Directory directory;
  const auto saved = random_state();
  save_learner(directory.path / "learner.bin", saved);
  const auto loaded = load_learner(directory.path / "learner.bin");
  CHECK(loaded.online == saved.online);
  CHECK(loaded.target == saved.target);
  CHECK(loaded.optimizer == saved.optimizer);
  CHECK(loaded.updates == 123);
  CHECK(loaded.trained_steps == 4567);
  CHECK(loaded.skipped == 2);
  CHECK(loaded.sampling == saved.sampling);
  CHECK(loaded.statistics == saved.statistics);
}

TEST_CASE("checkpoint: any cut and any flipped byte is an InputError that names the file") {
  Directory directory;
  const auto file = directory.path / "learner.bin";
  save_learner(file, random_state());
  const auto good = read_file(file);
  for (std::size_t size = 0; size < good.size(); size += 7) {
    write_file_atomically(file, std::span(good).first(size));
    CHECK_THROWS_AS(load_learner(file), InputError);
  }
  for (std::size_t i = 0; i < good.size(); i += 5) {
    auto bad = good;
    bad[i] ^= std::byte{0x10};
    write_file_atomically(file, bad);
    CHECK_THROWS_AS(load_learner(file), InputError);
  }
  CHECK(message_of([&] { (void)load_learner(file); }).find(file.string()) != std::string::npos);
}

TEST_CASE("checkpoint: weights of another network are refused with every tensor that does not match") {
  Directory directory;
  const auto file = directory.path / "weights.bin";
  const auto spec = network(8);
  const auto parameters = random_parameters(spec, 3);
  save_weights(file, spec, {parameters, {}});
  CHECK(load_weights(file, spec).parameters == parameters);
  const auto wider = message_of([&] { (void)load_weights(file, network(16)); });
  CHECK(wider.find("layers.0.weight: saw [4, 8], wanted [4, 16]") != std::string::npos);
  CHECK(wider.find("layers.0.bias: saw [8], wanted [16]") != std::string::npos);
  const auto dueling = message_of([&] { (void)load_weights(file, network(8, true)); });
  CHECK(dueling.find("value.weight: missing in the file") != std::string::npos);
  CHECK(dueling.find("q.weight: in the file only") != std::string::npos);
}

TEST_CASE("checkpoint: weights and learners of earlier versions are read") {
  Directory directory;
  // What stood in place of the empty statistics at the end, and the fourth byte of the magic.
  const auto make_old = [](const fs::path& file, std::size_t end, char version) {
    auto bytes = read_file(file);
    bytes.resize(bytes.size() - sizeof(std::uint64_t) - sizeof(std::uint64_t));  // empty statistics, checksum
    bytes.resize(bytes.size() + end);
    bytes[3] = static_cast<std::byte>(version);
    const auto sum = checksum(bytes);
    const auto raw = std::as_bytes(std::span(&sum, 1));
    bytes.insert(bytes.end(), raw.begin(), raw.end());
    write_file_atomically(file, bytes);
  };
  const auto spec = network(8);
  const auto weights = directory.path / "weights.bin";
  const auto parameters = random_parameters(spec, 3);
  save_weights(weights, spec, {parameters, {}});
  make_old(weights, 0, '1');
  CHECK(load_weights(weights, spec).parameters == parameters);
  CHECK(load_weights(weights, spec).statistics.empty());
  auto state = random_state();
  state.statistics.clear();
  const auto learner = directory.path / "learner.bin";
  // Both had the mean of the best evaluation and whether there was one, 9 bytes, the second statistics after them.
  for (const auto& [version, end] : {std::pair{'1', 9}, {'2', 17}}) {
    save_learner(learner, state);
    make_old(learner, static_cast<std::size_t>(end), version);
    CHECK(load_learner(learner).online == state.online);
    CHECK(load_learner(learner).sampling == state.sampling);
    CHECK(load_learner(learner).statistics.empty());
  }
}

TEST_CASE("checkpoint: statistics travel with the weights") {
  Directory directory;
  const auto spec = network(8);
  const nn::Weights weights{random_parameters(spec, 3), {std::byte{7}, std::byte{8}, std::byte{9}}};
  save_best(directory.path, spec, weights.view(), {1, 2, 3, 4});
  const auto loaded = load_weights(directory.path / "best" / "weights.bin", spec);
  CHECK(loaded.parameters == weights.parameters);
  CHECK(loaded.statistics == weights.statistics);
}

TEST_CASE("checkpoint: the newest is the complete one with the most updates") {
  Directory directory;
  CHECK(!newest_checkpoint(directory.path / "none"));
  complete(directory.path, 900);
  complete(directory.path, 10'000);
  make_directories(directory.path / checkpoint_name(20'000));  // no manifest: not complete
  CHECK(newest_checkpoint(directory.path)->filename() == checkpoint_name(10'000));
  const auto manifest = read_manifest(*newest_checkpoint(directory.path));
  CHECK(manifest.updates == 10'000);
  CHECK(manifest.env_steps == 100'000);
  CHECK(manifest.shards == 2);
}

TEST_CASE("checkpoint: pruning keeps the newest, and what is being written") {
  Directory directory;
  for (const std::uint64_t updates : {100, 200, 300, 400}) complete(directory.path, updates);
  make_directories(directory.path / checkpoint_name(150));  // left over by a crash
  make_directories(directory.path / checkpoint_name(500));  // under way
  prune_checkpoints(directory.path, 2);
  CHECK(list_directory(directory.path) ==
        std::vector<std::string>{checkpoint_name(300), checkpoint_name(400), checkpoint_name(500)});
}

TEST_CASE("checkpoint: verifying finds any cut, any flipped bit and any missing file, and names it") {
  Directory directory;
  complete(directory.path, 100);
  const auto checkpoint = directory.path / checkpoint_name(100);
  REQUIRE_NOTHROW(verify_checkpoint(checkpoint));
  for (const auto& name : list_directory(checkpoint)) {
    const auto file = checkpoint / name;
    INFO(name);
    const auto good = read_file(file);
    const auto expect_found = [&] {
      CHECK(message_of([&] { verify_checkpoint(checkpoint); }).find(file.string()) != std::string::npos);
    };
    for (std::size_t byte = 0; byte < good.size(); ++byte) {
      CAPTURE(byte, good[byte]);
      if (name != "manifest.json" || byte + 1 < good.size()) {  // its last newline says nothing
        write(file, std::span(good).first(byte));
        expect_found();
      }
      for (int bit = 0; bit < 8; ++bit) {
        write(file, good);
        flip(file, byte, bit);
        expect_found();
      }
    }
    auto longer = good;
    longer.push_back(std::byte{'x'});
    write(file, longer);
    expect_found();
    write(file, good);
    if (name == "shard-0.bin") continue;  // below
    fs::remove(file);
    expect_found();
    write(file, good);
  }
  CHECK_NOTHROW(verify_checkpoint(checkpoint));
}

TEST_CASE("checkpoint: a shard's snapshot may be taken away, its random numbers alone may not") {
  Directory directory;
  complete(directory.path, 100);
  const auto checkpoint = directory.path / checkpoint_name(100);
  fs::remove(checkpoint / "shard-0.bin");
  CHECK_NOTHROW(verify_checkpoint(checkpoint));
  fs::remove(checkpoint / "shard-0.rng");
  CHECK_NOTHROW(verify_checkpoint(checkpoint));
}

TEST_CASE("checkpoint: a manifest of before it listed files is read, and has none to verify") {
  Directory directory;
  write_file_atomically(directory.path / "manifest.json",
                        R"({"commit": "abc", "env_steps": 20, "format": 1, "shards": 2, "updates": 3})");
  const auto manifest = read_manifest(directory.path);
  CHECK(manifest.updates == 3);
  CHECK(manifest.files.empty());
  CHECK_NOTHROW(verify_checkpoint(directory.path));
  write_file_atomically(directory.path / "manifest.json",
                        R"({"commit": "abc", "env_steps": 20, "format": 7, "shards": 2, "updates": 3})");
  CHECK(message_of([&] { (void)read_manifest(directory.path); }).find("saw format 7, wanted 2") != std::string::npos);
}

TEST_CASE("checkpoint: the newest that is as it was written is found, with what is wrong with newer ones") {
  Directory directory;
  CHECK(!newest_verified_checkpoint(directory.path));
  for (const std::uint64_t updates : {100, 200, 300, 400}) complete(directory.path, updates);
  CHECK(newest_verified_checkpoint(directory.path)->directory.filename() == checkpoint_name(400));
  CHECK(newest_verified_checkpoint(directory.path)->newer.empty());
  flip(directory.path / checkpoint_name(400) / "head.bin", 3);
  flip(directory.path / checkpoint_name(300) / "manifest.json", 30);
  const auto found = newest_verified_checkpoint(directory.path);
  CHECK(found->directory.filename() == checkpoint_name(200));
  REQUIRE(found->newer.size() == 2);
  CHECK(found->newer[0].directory.filename() == checkpoint_name(400));
  CHECK(found->newer[0].why.find("head.bin: checksum mismatch") != std::string::npos);
  CHECK(found->newer[1].directory.filename() == checkpoint_name(300));
  CHECK(found->newer[1].why.find("manifest.json") != std::string::npos);
  fs::remove(directory.path / checkpoint_name(200) / "weights.bin");
  fs::resize_file(directory.path / checkpoint_name(100) / "shard-0.bin", 5);
  const auto refusal = message_of([&] { (void)newest_verified_checkpoint(directory.path); });
  for (const auto* words : {"400/head.bin: checksum mismatch", "300/manifest.json: ", "200/weights.bin is missing",
                            "100/shard-0.bin: saw 5 bytes, wanted the 18"})
    CHECK(refusal.find(words) != std::string::npos);
}

TEST_CASE("checkpoint: one that cannot be read is not passed over") {
  Directory directory;
  for (const std::uint64_t updates : {100, 200}) complete(directory.path, updates);
  const auto file = directory.path / checkpoint_name(200) / "head.bin";
  fs::remove(file);
  make_directories(file);  // reading it is an error of the system
  CHECK_THROWS_AS(newest_verified_checkpoint(directory.path), SystemError);
}

TEST_CASE("checkpoint: one that is set aside frees its name, and no good one is pruned for it") {
  Directory directory;
  for (const std::uint64_t updates : {100, 200}) complete(directory.path, updates);
  const auto damaged = directory.path / checkpoint_name(200);
  CHECK(set_aside(damaged).filename() == "damaged-" + checkpoint_name(200));
  complete(directory.path, 200);
  CHECK(set_aside(damaged).filename() == "damaged-" + checkpoint_name(200) + ".2");
  complete(directory.path, 300);
  prune_checkpoints(directory.path, 2);
  CHECK(list_directory(directory.path) == std::vector<std::string>{"damaged-" + checkpoint_name(200),
                                                                   "damaged-" + checkpoint_name(200) + ".2",
                                                                   checkpoint_name(100), checkpoint_name(300)});
}

TEST_CASE("checkpoint: another at the same update is written beside the first, and takes its place when complete") {
  Directory directory;
  complete(directory.path, 100);
  const auto first = directory.path / checkpoint_name(100);
  const auto second = new_checkpoint(directory.path, 100);
  REQUIRE(second != first);
  make_directories(second);
  const auto file = write_file_atomically(second / "head.bin", "later");
  CHECK(newest_verified_checkpoint(directory.path)->directory == first);  // as after a crash at this point
  CHECK(complete_checkpoint(second, {100, 1001, 0, "abc", {file}}) == first);
  CHECK(list_directory(directory.path) == std::vector<std::string>{checkpoint_name(100)});
  CHECK(read_manifest(first).env_steps == 1001);
  CHECK_NOTHROW(verify_checkpoint(first));
}

TEST_CASE("checkpoint: where a crash left both at one update, the second is the newest and is not written over") {
  Directory directory;
  complete(directory.path, 100);
  const auto first = directory.path / checkpoint_name(100);
  const auto second = new_checkpoint(directory.path, 100);
  fs::copy(first, second);
  CHECK(newest_checkpoint(directory.path) == second);
  CHECK(new_checkpoint(directory.path, 100) == first);
  complete(directory.path, 100);
  CHECK(list_directory(directory.path) == std::vector<std::string>{checkpoint_name(100)});
}

TEST_CASE("checkpoint: the best is kept apart from the others") {
  Directory directory;
  CHECK(!read_best(directory.path));
  const auto spec = network(8);
  save_best(directory.path, spec, {random_parameters(spec, 4), {}}, {77, 12.5, 0.5, 20});
  const auto best = read_best(directory.path);
  REQUIRE(best);
  CHECK(best->updates == 77);
  CHECK(best->mean == 12.5);
  prune_checkpoints(directory.path, 1);
  CHECK(read_best(directory.path));
}

TEST_CASE("checkpoint: what a checkpoint had to do without stands in its manifest") {
  Directory directory;
  const auto path = new_checkpoint(directory.path, 5);
  make_directories(path);
  const auto file = write_file_atomically(path / "head.bin", "head");
  complete_checkpoint(path, {5, 50, 2, "abc", {file}, {"shard-1: lost"}});
  CHECK(read_manifest(path).missing == std::vector<std::string>{"shard-1: lost"});
  CHECK_NOTHROW(verify_checkpoint(path));
}
