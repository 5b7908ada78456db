// The ledger test: whatever happens to connections and actors, every step is stored once and every sample is what the
// witness environment's rules say.
#include <algorithm>
#include <cmath>
#include <set>

#include "learner/agent.h"
#include "tests/support/catch.h"
#include "tests/system/witness_history.h"
#include "tests/system/world.h"

namespace qanat::system_test {
namespace {

constexpr std::int64_t stack = 4;
constexpr double gamma = 0.97;
constexpr std::size_t group_slots = 2;
constexpr std::int64_t actions = witness::actions;

struct Variant {
  std::int64_t n = 1;
  std::string scheme;
  bool second_column = false;
  bool mask = false;
};

cli::RunConfig config_of(const Variant& variant) {
  cli::RunConfig config;
  config.seed = 4100 + variant.n;
  config.env.id = "witness";
  config.env.options = text("dtype=f32,columns=", variant.second_column ? 2 : 1, ",mask=", variant.mask);
  config.network.hidden = {16};
  config.agent.stack = stack;
  config.agent.n_step = variant.n;
  config.agent.gamma = gamma;
  config.replay.shards = 2;
  config.replay.capacity_steps = 1009;
  config.replay.min_size = 1;
  config.replay.ratio = 0;  // the ratio is not this test's matter
  config.actors.count = 2;
  config.actors.slots = 2 * group_slots;
  config.actors.chunk_steps = 5;
  config.actors.exploration.kind = "constant";
  config.actors.exploration.constant = 0.5;
  config.learner.batch = 48;
  return config;
}

// The faults, the history worked out by hand, and the comparison of the two.
class LedgerTest {
 public:
  explicit LedgerTest(const Variant& variant)
      : variant_(variant),
        world_(config_of(variant), variant.scheme),
        agent_(world_.config.agent, 1e-3, world_.schema),
        action_column_(variant.second_column ? 2 : 1) {
    for (std::size_t i = 0; i < world_.interlopers.size(); ++i) plant_faults(i);
    for (std::size_t i = 0; i < world_.actors.size(); ++i) start_actor(i);
  }

  void run(std::uint64_t rows) {
    const auto phase = rows / 5;
    for (std::uint64_t k = 1; k <= 5; ++k) {
      while (world_.stored_rows() < k * phase) {
        step();
        draw(1);
      }
      if (k < 5) kill(k % 2);
      world_.publish(k + 1);
    }
    drain();
    draw(100);
  }

  void check_all_stored_once();
  void check_faults_happened() const;
  [[nodiscard]] std::uint64_t samples() const { return samples_; }
  [[nodiscard]] std::uint64_t short_tails() const { return short_tails_; }

 private:
  struct Life {
    std::int64_t tag = 0;
    std::size_t index = 0;
    std::uint64_t start = 0;
    std::uint64_t incarnation = 0;
    std::uint64_t steps = 0;  // that it took, over all slots
    bool killed = false;
    std::array<bool, 2> ended{};  // whether each shard knows that it is gone
  };

  void plant_faults(std::size_t index) {
    auto& interloper = *world_.interlopers[index];
    interloper.on_answer([this](wire::Incoming&) { return !faults_ || ++acks_ % 10 != 0 || (++lost_acks_, false); });
    interloper.on_request([this, &interloper](wire::Incoming& message) {
      world_.tape->record(message);
      if (!faults_) return true;
      ++inserts_;
      if (inserts_ % 83 == 0) interloper.cut_server();
      if (inserts_ % 127 == 0) {
        interloper.cut_clients();
        return false;
      }
      return true;
    });
  }

  void start_actor(std::size_t index) {
    const auto before = std::count_if(lives_.begin(), lives_.end(), [&](const Life& l) { return l.index == index; });
    Life life;
    life.tag = static_cast<std::int64_t>(lives_.size()) + 1;
    life.index = index;
    life.start = static_cast<std::uint64_t>(before);
    world_.start_actor(index, life.tag);
    lives_.push_back(life);
    for (std::size_t slot = 0; slot < 2 * group_slots; ++slot) {
      const auto seed = actors::environment_seed(actors::SeedPurpose::training, cli::run_seed(world_.config), index,
                                                 life.start, slot, 0);
      histories_[life.tag].push_back({life.tag, static_cast<std::int64_t>(slot % group_slots), seed});
    }
  }

  Life& life_of(std::int64_t tag) { return lives_.at(static_cast<std::size_t>(tag) - 1); }
  Life& running(std::size_t index) {
    return *std::find_if(lives_.rbegin(), lives_.rend(), [&](const Life& life) { return life.index == index; });
  }

  // In mid-episode: its last rows, sent or not, are lost or become short windows.
  void kill(std::size_t index) {
    auto& life = running(index);
    life.steps = world_.actors[index]->steps();
    life.killed = true;
    start_actor(index);
  }

  void step() {
    (void)world_.round(4);
    for (std::size_t s = 0; s < world_.logs.size(); ++s) {
      follow(s);
      check_items(s);
    }
  }

  void drain() {
    faults_ = false;
    world_.head->request_stop("the test is done");
    const auto left = [](const auto& actor) { return actor->finished(); };
    world_.until([&] {
      for (std::size_t s = 0; s < world_.logs.size(); ++s) follow(s);
      return std::all_of(world_.actors.begin(), world_.actors.end(), left);
    });
    for (std::size_t i = 0; i < world_.actors.size(); ++i) {
      auto& life = running(i);
      life.steps = world_.actors[i]->steps();
      REQUIRE(world_.actors[i]->writer().all_acked());
      REQUIRE(world_.actors[i]->writer().dropped_steps() == 0);
    }
    // Until both shards have heard that they left.
    world_.until([&] {
      for (std::size_t s = 0; s < world_.logs.size(); ++s) follow(s);
      return items_by_hand(0, true) == world_.shard(0).items() && items_by_hand(1, true) == world_.shard(1).items();
    });
    for (auto& life : lives_) life.ended = {true, true};
    for (std::size_t s = 0; s < world_.logs.size(); ++s) check_items(s);
  }

  // ---- what the rows say ---------------------------------------------------------------------------------

  Who who(const Row& row) const {
    Who out{};
    for (std::size_t i = 0; i < 4; ++i) {
      float number = 0;
      std::memcpy(&number, row.columns[0].data() + 4 * i, 4);
      out[i] = static_cast<std::int64_t>(number);
    }
    return out;
  }

  // Takes in the rows that are new on shard s: each must be what its slot did next.
  void follow(std::size_t s) {
    const auto& log = world_.logs[s];
    for (auto position = followed_[s]; position < log.end(); ++position) {
      const auto& place = log.at(position);
      const auto& row = log.row_at(position);
      const auto seen = who(row);
      auto& stream = streams_[place.stream];
      if (place.row == 0) begin_stream(stream, seen, place.stream);
      REQUIRE(stream.next == seen);
      std::erase_if(stream.candidates, [&](const SlotHistory& history) { return !matches(row, history, seen); });
      REQUIRE_FALSE(stream.candidates.empty());
      const bool last = (row.flags() & replay::flag_last_observation) != 0;
      stream.newest[seen[2]] = seen[3];
      stream.next = last ? Who{seen[0], seen[1], seen[2] + 1, 0} : Who{seen[0], seen[1], seen[2], seen[3] + 1};
      if (!last) ++stream.steps;
    }
    followed_[s] = log.end();
  }

  struct Stream {
    Who next{};                                   // what its next row must say
    std::vector<SlotHistory> candidates;          // slots that could have done all of it
    std::map<std::int64_t, std::int64_t> newest;  // newest t stored, by episode
    std::uint64_t steps = 0;
  };

  void begin_stream(Stream& stream, const Who& seen, const replay::StreamId& id) {
    REQUIRE(seen[3] == 0);  // no stream begins in mid-episode here: nothing of a living actor is lost
    REQUIRE(seen[2] == 0);
    stream.next = seen;
    life_of(seen[0]).incarnation = id.incarnation;
    for (const auto& history : histories_.at(seen[0])) {
      if (history.slot == seen[1]) stream.candidates.push_back(history);
    }
  }

  bool matches(const Row& row, const SlotHistory& history, const Who& seen) const {
    const auto [tag, slot, episode, t] = seen;
    const auto length = history.length(episode);
    const auto end = history.ending(episode);
    if (t > length) return false;
    std::uint8_t flags = t == 0 ? replay::flag_first : 0;
    if (t == length) flags = replay::flag_last_observation;
    if (t + 1 == length) {
      flags |= (end.terminated ? replay::flag_terminated : 0) | (end.truncated ? replay::flag_truncated : 0);
    }
    if (row.flags() != flags) return false;
    return t == length || row.value<float>(action_column_ + 1) == witness::reward(slot, episode, t);
  }

  // ---- items ---------------------------------------------------------------------------------------------

  // Whether the row at this position may be drawn now.
  bool drawable(std::size_t s, std::uint64_t position, bool all_ended) {
    const auto& log = world_.logs[s];
    const auto& row = log.row_at(position);
    if ((row.flags() & replay::flag_last_observation) != 0) return false;
    const auto& place = log.at(position);
    const auto [tag, slot, episode, t] = who(row);
    const auto& stream = streams_.at(place.stream);
    const auto newest = stream.newest.at(episode);
    const bool over = newest == stream.candidates.front().length(episode) && stream.next[2] > episode;
    const bool ended = all_ended || life_of(tag).ended[s];
    if (!over && newest - t < variant_.n && !(ended && newest > t)) return false;
    const auto oldest = place.row - static_cast<std::uint64_t>(std::min<std::int64_t>(t, stack - 1));
    return log.positions().at(place.stream)[oldest] >= log.begin();
  }

  std::uint64_t items_by_hand(std::size_t s, bool all_ended = false) {
    std::uint64_t count = 0;
    const auto& log = world_.logs[s];
    for (auto position = log.begin(); position < log.end(); ++position) count += drawable(s, position, all_ended);
    return count;
  }

  // When a shard hears of a kill it makes short windows of the stream's tail. That moment cannot be seen from outside;
  // what can be seen is that it happens once for all of the actor's streams and that the count is right before and
  // after it.
  void check_items(std::size_t s) {
    const auto& shard = world_.shard(s);
    for (auto& life : lives_) {
      if (!life.killed || life.ended[s] || items_by_hand(s) == shard.items()) continue;
      life.ended[s] = true;
    }
    INFO("shard " << s << " after " << world_.logs[s].end() << " rows");
    REQUIRE(shard.items() == items_by_hand(s));
    const auto& log = world_.logs[s];
    for (auto position = log.begin(); position < log.end(); ++position) {
      const auto item = shard.item(log.at(position).stream, log.at(position).row);
      REQUIRE(item.has_value() == drawable(s, position, false));
      if (item) REQUIRE(item->handle.generation == position);
    }
  }

  // ---- samples -------------------------------------------------------------------------------------------

  void draw(std::size_t batches) {
    std::uint64_t before = world_.client->items();
    if (before == 0) return;
    world_.draw(batches, [&](const replay::SampledBatch& batch) {
      for (std::size_t s = 0; s < world_.logs.size(); ++s) follow(s);
      const auto prepared = agent_.prepare(batch, 0.5);
      for (std::size_t i = 0; i < batch.size(); ++i) check_sample(batch, i, prepared);
      priorities_.resize(batch.size());
      for (auto& priority : priorities_) priority = static_cast<float>(0.1 + 3 * rng_.uniform());
      world_.client->update_priorities(batch, priorities_);
    });
  }

  void check_sample(const replay::SampledBatch& batch, std::size_t i, const nn::QBatch& prepared) {
    const auto handle = batch.handle(i);
    const auto& log = world_.logs[handle.shard];
    const auto& place = log.at(handle.generation);
    const auto& row = log.row_at(handle.generation);
    const auto [tag, slot, episode, t] = who(row);
    const auto& stream = streams_.at(place.stream);
    const auto& history = stream.candidates.front();
    const auto newest = stream.newest.at(episode);
    INFO("actor " << tag << " slot " << slot << " episode " << episode << " t " << t << " of "
                  << history.length(episode) << ", stored up to " << newest);
    const auto wanted = hand_worked(history, episode, t, newest, stack, variant_.n);
    const auto& table = batch.table;
    const auto m = wanted.rewards.size();
    REQUIRE(handle.slot == handle.generation % world_.shard(handle.shard).options().capacity_rows);
    REQUIRE(table.steps[i] == m);
    REQUIRE((table.terminal[i] != 0) == wanted.terminal);
    REQUIRE(table.actions[i] == row.value<std::int32_t>(action_column_));
    double sum = 0;
    for (std::size_t k = 0; k < static_cast<std::size_t>(variant_.n); ++k) {
      const float reward = k < m ? wanted.rewards[k] : 0;
      REQUIRE(table.rewards[i * static_cast<std::size_t>(variant_.n) + k] == reward);
      sum += std::pow(gamma, k) * reward;
    }
    // Sums of five at most, in double, rounded to float once: the powers' last bits cannot show, save in that rounding.
    REQUIRE(prepared.returns[i] == Approx(sum).epsilon(1e-6).margin(1e-6));
    REQUIRE(prepared.bootstrap[i] == Approx(wanted.terminal ? 0 : std::pow(gamma, m)).epsilon(1e-6).margin(0));
    REQUIRE(batch.probability[i] > 0);
    for (std::size_t k = 0; k < stack; ++k) {
      check_row(batch, table.state[i * stack + k], wanted.state[k]);
      check_row(batch, table.next_state[i * stack + k], wanted.next_state[k]);
    }
    if (variant_.mask) check_mask(&prepared.next_mask[i * actions], wanted.next_state.back());
    ++samples_;
    short_tails_ +=
        m < static_cast<std::size_t>(variant_.n) && t + static_cast<std::int64_t>(m) < history.length(episode);
  }

  void check_row(const replay::SampledBatch& batch, std::uint32_t row, const Who& wanted) {
    REQUIRE(row < batch.rows);
    std::array<float, 4> seen{};
    std::memcpy(seen.data(), batch.columns[0].data() + row * sizeof seen, sizeof seen);
    for (std::size_t k = 0; k < 4; ++k) REQUIRE(seen[k] == static_cast<float>(wanted[k]));
    if (variant_.second_column) {
      for (std::size_t k = 0; k < 4; ++k) {
        REQUIRE(std::to_integer<int>(batch.columns[1][row * 4 + k]) == (wanted[k] & 255));
      }
    }
    if (variant_.mask) {
      check_mask(reinterpret_cast<const std::uint8_t*>(batch.columns.back().data()) + row * actions, wanted);
    }
  }

  static void check_mask(const std::uint8_t* seen, const Who& wanted) {
    const auto [tag, slot, episode, t] = wanted;
    for (std::int64_t a = 0; a < actions; ++a) REQUIRE((seen[a] != 0) == witness::allowed(slot, episode, t, a));
  }

  Variant variant_;
  World world_;
  learner::DqnAgent agent_;
  std::size_t action_column_;  // of the tape: who, [low_bytes], action, reward, [mask], flags
  std::vector<Life> lives_;
  std::map<std::int64_t, std::vector<SlotHistory>> histories_;  // by tag, in the order of slots
  std::map<replay::StreamId, Stream> streams_;
  std::array<std::uint64_t, 2> followed_{};
  std::vector<float> priorities_;
  Rng rng_{99};
  bool faults_ = true;
  std::uint64_t acks_ = 0, lost_acks_ = 0, inserts_ = 0;
  std::uint64_t samples_ = 0, short_tails_ = 0;
};

void LedgerTest::check_all_stored_once() {
  std::map<SlotHistory, std::uint64_t> steps;
  for (const auto& [id, stream] : streams_) {
    // No two streams tell of the same slot: so each of its steps is stored once, in the one order there is.
    INFO("stream " << id.incarnation << '/' << id.slot);
    REQUIRE(stream.candidates.size() == 1);
    REQUIRE(steps.emplace(stream.candidates.front(), stream.steps).second);
  }
  std::uint64_t stored = 0;
  for (const auto& life : lives_) {
    std::uint64_t sum = 0;
    for (const auto& history : histories_.at(life.tag)) {
      const auto found = steps.find(history);  // none of an actor that still waits for a dead one's place
      sum += found == steps.end() ? 0 : found->second;
    }
    INFO("actor " << life.tag);
    if (life.killed) {
      REQUIRE(sum <= life.steps);
    } else {
      REQUIRE(sum == life.steps);
    }
    stored += sum;
  }
  std::uint64_t counted = 0;
  for (std::size_t s = 0; s < world_.logs.size(); ++s) counted += world_.shard(s).counters().inserted_steps;
  REQUIRE(counted == stored);
  world_.until([&] { return world_.head->status().env_steps == stored; });  // the ledger's count
}

void LedgerTest::check_faults_happened() const {
  std::uint64_t duplicates = 0;
  std::uint64_t wraps = 1000;
  for (std::size_t s = 0; s < world_.logs.size(); ++s) {
    duplicates += world_.shard(s).counters().duplicate_chunks;
    wraps = std::min(wraps, world_.logs[s].end() / world_.shard(s).options().capacity_rows);
    CHECK(world_.interlopers[s]->cuts() >= 2);
  }
  CHECK(wraps >= 4);
  CHECK(lost_acks_ >= 20);
  // Most lost acks are made good by the next one; how often a chunk goes out again depends on the machine.
  CHECK(duplicates >= 1);
  CHECK(world_.tape->repeats() >= 1);
}

}  // namespace

TEST_CASE("ledger: with lost acks, cut connections and killed actors each step is stored once and sampled right",
          "[ledger]") {
  const auto variant =
      GENERATE(Variant{1, "tcp", false, false}, Variant{3, "ipc", true, true}, Variant{5, "tcp", false, true});
  LedgerTest test(variant);
  test.run(5 * 1200);
  test.check_all_stored_once();
  test.check_faults_happened();
  CHECK(test.samples() >= 10'000);
  if (variant.n > 1) CHECK(test.short_tails() > 0);
}

}  // namespace qanat::system_test
