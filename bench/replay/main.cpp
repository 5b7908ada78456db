// What the replay core does in a second on one thread, without sockets: draws and updates of the bare sum tree at 1 M
// and 16 M leaves, and whole samples, inserts and updates of a shard with Atari rows.
//
// bench_replay [--json] [--quick]: one line a case; with --json an object with name, value and unit.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "core/rng.h"
#include "replay/selector.h"
#include "replay/shard.h"
#include "replay/sum_tree.h"

namespace {

using namespace qanat;
using namespace qanat::replay;

struct Report {
  bool json = false;

  void line(std::string_view name, double value, std::string_view unit) const {
    const int length = static_cast<int>(name.size());
    if (json) {
      std::printf("{\"name\": \"%.*s\", \"value\": %.6g, \"unit\": \"%.*s\"}\n", length, name.data(), value,
                  static_cast<int>(unit.size()), unit.data());
    } else {
      std::printf("%-44.*s %12.4g %.*s\n", length, name.data(), value, static_cast<int>(unit.size()), unit.data());
    }
    std::fflush(stdout);
  }
};

double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Calls of `body` a second of this thread's own CPU time, so that others on the machine take away caches and bandwidth
// but not the clock: the best of five rounds of about `seconds`.
template <class Body>
double best_rate(double seconds, Body&& body) {
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    const double start = cpu_seconds();
    double elapsed = 0;
    std::uint64_t calls = 0;
    while (elapsed < seconds) {
      for (int i = 0; i < 4; ++i) body();  // reading the clock costs a system call
      calls += 4;
      elapsed = cpu_seconds() - start;
    }
    best = std::max(best, static_cast<double>(calls) / elapsed);
  }
  return best;
}

void bench_tree(const Report& report, std::uint64_t leaves, double seconds) {
  const std::string size = leaves >> 20 == 1 ? "1M" : "16M";
  constexpr std::size_t batch = 512;
  Rng rng(1);
  SumTree tree(leaves);
  std::vector<std::uint32_t> slots(leaves);
  std::vector<std::uint32_t> weights(leaves);
  for (std::uint32_t slot = 0; slot < leaves; ++slot) {
    slots[slot] = slot;
    weights[slot] = static_cast<std::uint32_t>(rng.below(std::uint64_t{1} << 22));
  }
  tree.set(slots, weights);
  std::vector<std::uint64_t> points(batch);
  std::vector<std::uint32_t> found(batch);
  const double stratified = best_rate(seconds, [&] {
    stratified_points(tree.total(), {}, rng, points);
    tree.find(points, found);
  });
  report.line("tree_draws_stratified_512_" + size, stratified * batch, "draws/s");
  const double independent = best_rate(seconds, [&] {
    for (std::uint64_t& point : points) point = rng.below(tree.total());
    tree.find(points, found);
  });
  report.line("tree_draws_independent_512_" + size, independent * batch, "draws/s");
  // Slots and weights made beforehand: the tree is what is timed.
  constexpr std::size_t many = 1 << 16;
  slots.resize(many);
  weights.resize(many);
  for (std::size_t i = 0; i < many; ++i) {
    slots[i] = static_cast<std::uint32_t>(rng.below(leaves));
    weights[i] = static_cast<std::uint32_t>(rng.below(std::uint64_t{1} << 22));
  }
  std::size_t at = 0;
  const double updates = best_rate(seconds, [&] {
    tree.set(std::span(slots).subspan(at, batch), std::span(weights).subspan(at, batch));
    at = (at + batch) % many;
  });
  report.line("tree_updates_512_" + size, updates * batch, "updates/s");
}

// Rows of 84x84 bytes: one frame a step.
void bench_shard(const Report& report, std::uint64_t capacity, double seconds) {
  Schema schema;
  schema.observations = {{"frame", DType::u8, {1, 84, 84}}};
  schema.action = {"action", DType::i32, {}};
  ShardOptions options;
  options.capacity_rows = capacity;
  options.stack = 4;
  options.n_step = 3;
  Shard shard(options, schema);

  constexpr std::uint32_t rows = 32;
  constexpr std::uint32_t streams = 16;
  Rng rng(2);
  std::vector<std::uint8_t> frames(rows * 84 * 84);
  for (std::uint8_t& pixel : frames) pixel = static_cast<std::uint8_t>(rng.next());
  std::vector<std::int32_t> actions(rows, 1);
  std::vector<float> rewards(rows, 1);
  std::vector<std::uint8_t> flags(rows, 0);
  std::vector<ItemPriority> priorities;
  std::uint32_t turn = 0;
  const auto insert = [&] {
    const StreamId id{1, turn++ % streams};
    const std::uint64_t first = shard.rows_of(id);
    flags[0] = first == 0 ? flag_first : 0;
    const std::span<const std::byte> columns[] = {std::as_bytes(std::span(frames)), std::as_bytes(std::span(actions)),
                                                  std::as_bytes(std::span(rewards)), std::as_bytes(std::span(flags))};
    priorities.clear();
    for (std::uint64_t row = first == 0 ? 0 : first - 3; row + 3 < first + rows; ++row) {
      priorities.push_back({row, static_cast<float>(rng.uniform())});
    }
    ChunkView chunk;
    chunk.stream = id;
    chunk.sequence = shard.next_sequence(id);
    chunk.first_row = first;
    chunk.rows = rows;
    chunk.columns = columns;
    chunk.priority_n = 3;
    chunk.priorities = priorities;
    shard.insert(chunk, -1);
  };
  while (shard.counters().evicted_rows == 0) insert();
  report.line("shard_inserts_atari_chunk_32", best_rate(seconds, insert) * rows, "steps/s");

  Draw draw;
  std::vector<std::byte> out;
  for (const std::uint32_t batch : {32U, 512U}) {
    const auto sample = [&] { return shard.draw(batch, rng, DrawMode::by_mass, draw); };
    const std::string size = std::to_string(batch);
    report.line("shard_draws_batch_" + size, best_rate(seconds, sample) * batch, "items/s");
    const double whole = best_rate(seconds, [&] {
      if (!sample()) return;
      out.resize(draw.rows.size() * shard.column_bytes(0));
      shard.gather(0, draw.rows, out.data());
    });
    report.line("shard_samples_atari_batch_" + size, whole * batch, "samples/s");
    report.line("shard_samples_atari_bytes_batch_" + size, whole * static_cast<double>(out.size()), "bytes/s");
  }
  if (!shard.draw(512, rng, DrawMode::by_mass, draw)) return;
  std::vector<float> values(512);
  const double updates = best_rate(seconds, [&] {
    for (float& value : values) value = static_cast<float>(rng.uniform());
    shard.update_priorities(draw.handles, values);
  });
  report.line("shard_priority_updates_512", updates * 512, "updates/s");
}

}  // namespace

int main(int argc, char** argv) {
  Report report;
  double seconds = 0.2;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--json") == 0) {
      report.json = true;
    } else if (std::strcmp(argv[i], "--quick") == 0) {
      seconds = 0.02;
    } else {
      std::fprintf(stderr, "usage: bench_replay [--json] [--quick]\n");
      return 2;
    }
  }
  if (!report.json) std::printf("sum tree kernels: %s\n", SumTree::target());
  bench_tree(report, std::uint64_t{1} << 20, seconds);
  bench_tree(report, std::uint64_t{16} << 20, seconds);
  bench_shard(report, 200'000, seconds);
  return 0;
}
