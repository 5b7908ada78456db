// Sampling over four shard processes: who is drawn how often, what probability is reported, and what the weights make
// of it. Each of the known wrong schemes is planted to show that the same checks refuse it.
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <limits>

#include "cli/roles.h"
#include "core/config_writer.h"
#include "learner/agent.h"
#include "replay/run_schema.h"
#include "tests/core/temporary_directory.h"
#include "tests/replay/statistics.h"
#include "tests/support/catch.h"

namespace qanat::system_test {
namespace {

constexpr std::size_t shard_count = 4;
constexpr std::uint32_t batch_size = 2000;
// Items are numbered through, shard after shard. Their leaves repeat 1, 2, 3, 6 times the shard's unit, so with these
// counts (9:4:2:1) and units the masses are 1:2:4:9.
constexpr std::array<std::uint32_t, shard_count> counts = {2160, 960, 480, 240};
constexpr std::array<std::uint32_t, shard_count> units = {2, 9, 36, 162};
constexpr std::uint32_t leaf_unit = 1024;  // of 2^20: a priority of k / 1024 makes a leaf of exactly 1024 k

struct Population {
  std::vector<std::uint32_t> shard;  // of each item
  std::vector<std::uint32_t> leaf;
  std::array<std::uint32_t, shard_count> first{};  // item of each shard
  std::array<double, shard_count> mass{};
  double total = 0;

  Population() {
    constexpr std::array<std::uint32_t, 4> pattern = {1, 2, 3, 6};
    for (std::uint32_t s = 0; s < shard_count; ++s) {
      first[s] = static_cast<std::uint32_t>(leaf.size());
      for (std::uint32_t k = 0; k < counts[s]; ++k) {
        shard.push_back(s);
        leaf.push_back(leaf_unit * units[s] * pattern[k % 4]);
        mass[s] += leaf.back();
      }
      total += mass[s];
    }
  }
  [[nodiscard]] std::size_t size() const { return leaf.size(); }
  [[nodiscard]] double probability(std::size_t item) const { return leaf[item] / total; }
};

// ---- the processes ------------------------------------------------------------------------------------------

// Shards in processes of their own, forked before this one makes a thread; the head, the writer of all items and the
// learner's client are here.
class Cluster {
 public:
  // With `pixels` each row carries so many bytes more.
  explicit Cluster(const std::string& selector, std::int64_t pixels = 0) {
    config_.seed = 31;
    config_.agent.n_step = 1;
    config_.replay.shards = shard_count;
    config_.replay.capacity_steps = 4 * 8192;  // a chunk may be half a shard, and all its items come in one
    config_.replay.alpha = 1;
    config_.replay.ratio = 0;
    config_.replay.selector = selector;
    for (std::size_t s = 0; s < shard_count; ++s) fork_shard(static_cast<std::int64_t>(s));
    context_.emplace();
    log_.emplace(LogOptions{.who = "head", .path = directory_ / "head.log", .to_stderr = false});
    environment_.id = "numbers";
    environment_.observations = {{{"number", DType::f32, {1}}, 0, 1e6}};
    if (pixels > 0) environment_.observations.push_back({{"picture", DType::u8, {pixels}}, 0, 255});
    environment_.actions = 2;
    auto options = cli::head_options(config_, directory_.path().string());
    options.bind = {address()};
    options.config = write_config(config_);
    options.schema = {environment_};
    head_ = std::make_unique<control::Head>(*context_, clock_, *log_, options, nullptr);
    control::MemberOptions member;
    member.role = wire::Role::learner;
    member.incarnation = 1;
    member.head = {address()};
    learner_.emplace(*context_, clock_, member);
    wait_until([&] { return learner_->alive(wire::Role::replay).size() == shard_count; });
    insert_all();
    open_client();
  }

  ~Cluster() {
    for (const auto pid : children_) {
      ::kill(pid, SIGKILL);  // a supervised shard ends with its run, and this run has no end
      int status = 0;
      ::waitpid(pid, &status, 0);
    }
  }
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  // A batch at a time goes to `take`; several are under way, asked for `round` at a time.
  template <class Take>
  void draw(std::size_t batches, Take take, std::uint32_t round = 1) {
    std::size_t requested = 0;
    std::size_t taken = 0;
    wait_until([&] {
      while (requested < batches && client_->in_flight() < 4 && client_->request(round)) requested += round;
      while (auto batch = client_->take()) {
        take(*batch);
        ++taken;
        client_->recycle(std::move(*batch));
      }
      return taken == batches;
    });
  }
  // The client loses sight of a shard and finds it again.
  void lose_and_find(std::size_t shard) {
    auto fewer = addresses_;
    fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(shard));
    client_->set_shards(fewer);
    client_->set_shards(addresses_);
    wait_until([&] { return client_->items() == Population().size(); });
  }
  [[nodiscard]] replay::ReplayClient& client() { return *client_; }
  [[nodiscard]] const cli::RunConfig& config() const { return config_; }
  [[nodiscard]] const wire::EnvironmentSchema& environment() const { return environment_; }
  [[nodiscard]] std::size_t processes() const { return children_.size(); }

  template <class Done>
  void wait_until(Done done) {
    const auto limit = clock_.now() + std::chrono::seconds(120);
    while (!done()) {
      bool any = head_->step();
      any |= learner_->step();
      any |= client_ && client_->step();
      if (any) continue;
      std::vector<wire::Socket*> sockets = head_->sockets();
      if (client_) {
        for (auto* socket : client_->sockets()) sockets.push_back(socket);
      }
      wire::wait(sockets, Milliseconds(2));
      if (clock_.now() > limit) FAIL("two minutes went by");
    }
  }

 private:
  [[nodiscard]] std::string address() const { return "ipc://" + (directory_ / "head").string(); }

  void fork_shard(std::int64_t index) {
    const auto pid = ::fork();
    REQUIRE(pid >= 0);
    if (pid > 0) {
      children_.push_back(pid);
      return;
    }
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    int code = 1;
    try {
      cli::run_replay(
          {.connect = {address()}, .index = index, .log_dir = directory_.path().string(), .supervised = true});
      code = 0;
    } catch (...) {
      // The parent waits for this shard in vain and says so; the reason is in the shard's log.
    }
    ::_exit(code);
  }

  // One endless episode a shard, its k-th step an item as soon as the next one is there.
  void insert_all() {
    for (const auto* shard : learner_->alive(wire::Role::replay)) {
      wire::Socket socket(*context_, wire::SocketKind::dealer, {.identity = text("writer-", shard->index)});
      socket.connect(learner_->address_of(*shard, "insert"));
      const auto s = static_cast<std::size_t>(shard->index);
      auto message = insert_of(s, environment_.observations.back().tensor);
      REQUIRE(socket.send(message) == wire::Sent::yes);
      wait_until([&] {
        const auto answer = socket.receive();
        if (!answer) return false;
        const auto ack = wire::decode<wire::InsertAck>(*answer);
        REQUIRE(ack.acks.size() == 1);
        INFO(ack.acks[0].reason);
        REQUIRE(ack.acks[0].status == wire::AckStatus::applied);
        return true;
      });
    }
  }

  static wire::Message insert_of(std::size_t s, const TensorSpec& last) {
    static const Population population;
    const std::size_t rows = counts[s] + 1;
    wire::Insert insert;
    insert.epoch = 1;
    wire::ChunkHead chunk;
    chunk.incarnation = 500 + s;
    chunk.rows = static_cast<std::uint32_t>(rows);
    chunk.priority_n = 1;
    std::vector<float> numbers(rows, -1);
    for (std::uint32_t k = 0; k < counts[s]; ++k) {
      const auto item = population.first[s] + k;
      numbers[k] = static_cast<float>(item);
      chunk.item_starts.push_back(k);
      chunk.item_priorities.push_back(static_cast<float>(population.leaf[item]) / (1 << 20));
    }
    insert.chunks = {chunk};
    std::vector<std::uint8_t> flags(rows, 0);
    flags[0] = replay::flag_first;
    std::vector<wire::Frame> parts;
    parts.push_back(wire::Frame::copy_of(std::span<const std::uint8_t>(flags)));
    parts.push_back(wire::Frame::copy_of(std::span<const float>(std::vector<float>(rows, 0))));
    parts.push_back(wire::Frame::copy_of(std::span<const std::int32_t>(std::vector<std::int32_t>(rows, 1))));
    if (last.name == "picture") {
      parts.push_back(
          wire::Frame::copy_of(std::span<const std::uint8_t>(std::vector<std::uint8_t>(rows * last.bytes()))));
    }
    parts.push_back(wire::Frame::copy_of(std::span<const float>(numbers)));
    return wire::encode(insert, std::move(parts));
  }

  void open_client() {
    replay::ClientOptions options;
    options.schema = replay::schema_of(environment_, false);
    options.batch = batch_size;
    options.seed = 8;
    options.identity = "learner";
    client_ = std::make_unique<replay::ReplayClient>(*context_, clock_, options);
    client_->set_epoch(learner_->epoch());
    for (const auto* shard : learner_->alive(wire::Role::replay)) {
      addresses_.push_back({shard->index, shard->incarnation, learner_->address_of(*shard, "sample")});
    }
    client_->set_shards(addresses_);
    wait_until([&] { return client_->items() == Population().size(); });
  }

  test::TemporaryDirectory directory_;
  cli::RunConfig config_;
  std::vector<pid_t> children_;
  std::optional<wire::Context> context_;
  SteadyClock clock_;
  std::optional<Logger> log_;
  wire::EnvironmentSchema environment_;
  std::unique_ptr<control::Head> head_;
  std::optional<control::Member> learner_;
  std::unique_ptr<replay::ReplayClient> client_;
  std::vector<replay::ShardAddress> addresses_;
};

std::uint32_t item_of(const replay::SampledBatch& batch, std::size_t i) {
  float number = 0;
  std::memcpy(&number, batch.columns[0].data() + batch.table.state[i] * sizeof number, sizeof number);
  REQUIRE(number >= 0);
  return static_cast<std::uint32_t>(number);
}

// ---- the checks ---------------------------------------------------------------------------------------------

// What a learner saw, batch after batch.
struct Draws {
  std::vector<std::uint32_t> item;
  std::vector<std::uint32_t> leaf;
  std::vector<double> probability;  // reported
  std::vector<double> weight;       // at beta 1, the largest of each batch 1
};

struct Verdict {
  bool over_shards = false;    // chi-square, p > 1e-6
  bool within_shards = false;  // the same in each of them
  bool reported = false;       // leaf and probability
  bool mean = false;           // of f(i) = i, weighted
  [[nodiscard]] bool all() const { return over_shards && within_shards && reported && mean; }
};

bool shares_fit(const Population& population, const Draws& draws) {
  std::array<std::uint64_t, shard_count> seen{};
  std::array<double, shard_count> wanted{};
  for (const auto item : draws.item) ++seen[population.shard[item]];
  for (std::size_t s = 0; s < shard_count; ++s) wanted[s] = population.mass[s] / population.total;
  return test::chi_square(seen, wanted) < test::chi_square_limit(shard_count - 1);
}

// The least expected number of draws of an item is 9.6, enough for the statistic.
bool items_fit(const Population& population, const Draws& draws) {
  std::vector<std::uint64_t> seen(population.size());
  for (const auto item : draws.item) ++seen[item];
  for (std::size_t s = 0; s < shard_count; ++s) {
    std::vector<double> wanted;
    for (std::size_t k = 0; k < counts[s]; ++k)
      wanted.push_back(population.leaf[population.first[s] + k] / population.mass[s]);
    const std::span<const std::uint64_t> here(seen.data() + population.first[s], counts[s]);
    if (!(test::chi_square(here, wanted) < test::chi_square_limit(counts[s] - 1))) return false;
  }
  return true;
}

// The leaf to the bit; the probability, a product of two quotients, to its three roundings.
bool reported_fit(const Population& population, const Draws& draws) {
  constexpr double rounding = 1.5 * std::numeric_limits<double>::epsilon();
  for (std::size_t i = 0; i < draws.item.size(); ++i) {
    const auto item = draws.item[i];
    const double wanted = population.probability(item);
    if (draws.leaf[i] != population.leaf[item]) return false;
    if (!(std::abs(draws.probability[i] - wanted) <= rounding * wanted)) return false;
  }
  return true;
}

// Weights are relative to the largest of their batch; with that undone they are 1 / (N P), and the weighted mean over
// all batches is the population's.
bool mean_fits(const Population& population, const Draws& draws) {
  const auto true_weight = [&](std::size_t i) {
    return 1 / (static_cast<double>(population.size()) * population.probability(draws.item[i]));
  };
  const double wanted = (static_cast<double>(population.size()) - 1) / 2;
  double weights = 0;
  double sum = 0;
  double squares = 0;
  for (std::size_t begin = 0; begin < draws.item.size(); begin += batch_size) {
    const auto end = std::min(begin + batch_size, draws.item.size());
    double largest = 0;
    for (auto i = begin; i < end; ++i) largest = std::max(largest, true_weight(i));
    for (auto i = begin; i < end; ++i) {
      const double weight = draws.weight[i] * largest;
      weights += weight;
      sum += weight * draws.item[i];
      squares += std::pow(true_weight(i) * (draws.item[i] - wanted), 2);
    }
  }
  const double standard_error = std::sqrt(squares) / static_cast<double>(draws.item.size());
  return std::abs(sum / weights - wanted) < 5 * standard_error;
}

Verdict judge(const Population& population, const Draws& draws) {
  return {shares_fit(population, draws), items_fit(population, draws), reported_fit(population, draws),
          mean_fits(population, draws)};
}

// ---- the wrong schemes --------------------------------------------------------------------------------------

// The weights that a learner would compute of reported probabilities.
void weigh(const Population& population, Draws& draws) {
  draws.weight.resize(draws.item.size());
  for (std::size_t begin = 0; begin < draws.item.size(); begin += batch_size) {
    const auto end = std::min(begin + batch_size, draws.item.size());
    double largest = 0;
    for (auto i = begin; i < end; ++i) {
      draws.weight[i] = 1 / (static_cast<double>(population.size()) * draws.probability[i]);
      largest = std::max(largest, draws.weight[i]);
    }
    for (auto i = begin; i < end; ++i) draws.weight[i] /= largest;
  }
}

// As many draws as `real` in which shards have the given shares, right within each. `honest`: the probability is
// reported with those shares; else as if they were right.
Draws with_shares(const Population& population, const Draws& real, const std::array<double, shard_count>& shares,
                  bool honest) {
  Rng rng(12);
  Draws out;
  for (std::size_t i = 0; i < real.item.size(); ++i) {
    double u = rng.uniform();
    std::uint32_t s = 0;
    while (s + 1 < shard_count && u >= shares[s]) u -= shares[s++];
    double left = rng.uniform() * population.mass[s];
    std::uint32_t item = population.first[s];
    const auto last = population.first[s] + counts[s] - 1;
    while (item < last && left >= population.leaf[item]) left -= population.leaf[item++];
    out.item.push_back(item);
    out.leaf.push_back(population.leaf[item]);
    out.probability.push_back(honest ? shares[s] * population.leaf[item] / population.mass[s]
                                     : population.probability(item));
  }
  weigh(population, out);
  return out;
}

Draws with_local_probability(const Population& population, Draws draws) {
  for (std::size_t i = 0; i < draws.item.size(); ++i) {
    draws.probability[i] = population.leaf[draws.item[i]] / population.mass[population.shard[draws.item[i]]];
  }
  weigh(population, draws);
  return draws;
}

Draws with_weights_by_shard(const Population& population, Draws draws) {
  for (std::size_t begin = 0; begin < draws.item.size(); begin += batch_size) {
    const auto end = std::min(begin + batch_size, draws.item.size());
    std::array<double, shard_count> largest{};
    for (auto i = begin; i < end; ++i) {
      auto& of_shard = largest[population.shard[draws.item[i]]];
      of_shard = std::max(of_shard, draws.weight[i]);
    }
    for (auto i = begin; i < end; ++i) draws.weight[i] /= largest[population.shard[draws.item[i]]];
  }
  return draws;
}

void take_in(const replay::SampledBatch& batch, learner::DqnAgent& agent, Draws& draws) {
  REQUIRE(batch.size() == batch_size);
  const auto prepared = agent.prepare(batch, 1.0);
  for (std::size_t i = 0; i < batch.size(); ++i) {
    draws.item.push_back(item_of(batch, i));
    draws.leaf.push_back(batch.table.leaves[i]);
    draws.probability.push_back(batch.probability[i]);
    draws.weight.push_back(prepared.weight[i]);
  }
}

}  // namespace

TEST_CASE("sampling: a million draws over four shard processes have the right shares, probabilities and weights",
          "[sampling]") {
  // Alone, and beside pictures, with which a batch takes forty requests.
  const std::int64_t pixels = GENERATE(0, 5000);
  Cluster cluster("prioritised", pixels);
  REQUIRE(cluster.processes() == shard_count);
  const Population population;
  for (std::size_t s = 0; s < shard_count; ++s) {
    REQUIRE(population.mass[s] == population.mass[0] * std::array{1, 2, 4, 9}[s]);
    REQUIRE(counts[s] * 9 == counts[0] * std::array{9, 4, 2, 1}[s]);
  }
  learner::DqnAgent agent(cluster.config().agent, 1e-3, cluster.environment());
  Draws draws;
  cluster.draw(500, [&](const replay::SampledBatch& batch) {
    REQUIRE(batch.items == population.size());
    take_in(batch, agent, draws);
  });
  REQUIRE(draws.item.size() == 1'000'000);
  const auto verdict = judge(population, draws);
  CHECK(verdict.over_shards);
  CHECK(verdict.within_shards);
  CHECK(verdict.reported);
  CHECK(verdict.mean);

  // The checks refuse every scheme that is known to be wrong, and for the right reason.
  const std::array<double, shard_count> equal = {0.25, 0.25, 0.25, 0.25};
  const std::array<double, shard_count> by_count = {9.0 / 16, 4.0 / 16, 2.0 / 16, 1.0 / 16};
  for (const auto& shares : {equal, by_count}) {
    const auto honest = judge(population, with_shares(population, draws, shares, true));
    CHECK_FALSE(honest.over_shards);
    CHECK_FALSE(honest.reported);
    CHECK(honest.within_shards);
    const auto lying = judge(population, with_shares(population, draws, shares, false));
    CHECK_FALSE(lying.over_shards);
    CHECK_FALSE(lying.mean);
  }
  const auto local = judge(population, with_local_probability(population, draws));
  CHECK_FALSE(local.reported);
  CHECK_FALSE(local.mean);
  CHECK_FALSE(judge(population, with_weights_by_shard(population, draws)).mean);
  // And a scheme made by the same means, but right, passes: it is the shares that are refused above.
  const std::array<double, shard_count> right = {1.0 / 16, 2.0 / 16, 4.0 / 16, 9.0 / 16};
  CHECK(judge(population, with_shares(population, draws, right, true)).all());
}

TEST_CASE("sampling: of batches that travel together each is drawn from the whole mass", "[sampling]") {
  constexpr std::uint32_t round = 4;
  Cluster cluster("prioritised");
  const Population population;
  learner::DqnAgent agent(cluster.config().agent, 1e-3, cluster.environment());
  std::array<Draws, round> draws;
  std::size_t taken = 0;
  cluster.draw(
      400,
      [&](const replay::SampledBatch& batch) {
        std::array<double, shard_count> seen{};
        for (std::size_t i = 0; i < batch.size(); ++i) ++seen[population.shard[item_of(batch, i)]];
        for (std::size_t s = 0; s < shard_count; ++s) {
          // Stratified as a round, and so within each batch but for the strata that a shard's edge cuts.
          REQUIRE(std::abs(seen[s] - batch_size * population.mass[s] / population.total) <= 2);
        }
        take_in(batch, agent, draws[taken++ % round]);
      },
      round);
  Draws all;
  for (const auto& part : draws) {
    CHECK(judge(population, part).all());
    all.item.insert(all.item.end(), part.item.begin(), part.item.end());
    all.leaf.insert(all.leaf.end(), part.leaf.begin(), part.leaf.end());
    all.probability.insert(all.probability.end(), part.probability.begin(), part.probability.end());
    all.weight.insert(all.weight.end(), part.weight.begin(), part.weight.end());
  }
  CHECK(judge(population, all).all());
  // The check sees batches that are cut from the round in one piece: the first would hold the first shards only.
  Draws first = all;
  for (std::size_t i = 0; i < first.item.size(); ++i) first.item[i] %= population.size() / round;
  CHECK_FALSE(judge(population, first).over_shards);
}

TEST_CASE("sampling: the probability is the one used, although a shard's mass moved after its share was fixed",
          "[sampling]") {
  Cluster cluster("prioritised");
  Population population;
  const auto before = population;
  std::vector<replay::SampledBatch> batches;
  cluster.draw(1, [&](const replay::SampledBatch& batch) { batches.push_back(batch); });
  // All that was drawn of shard 3 weighs nearly nothing from now on, but the client fixes the next shares before it
  // hears of that; the shards do hear first.
  std::vector<float> priorities;
  for (std::size_t i = 0; i < batch_size; ++i) {
    const auto item = item_of(batches[0], i);
    if (population.shard[item] == 3) population.leaf[item] = 2048;
    priorities.push_back(static_cast<float>(population.leaf[item]) / (1 << 20));
  }
  cluster.client().update_priorities(batches[0], priorities);
  std::array<double, shard_count> mass{};
  for (std::size_t item = 0; item < population.size(); ++item) mass[population.shard[item]] += population.leaf[item];
  REQUIRE(mass[3] < before.mass[3] / 10);
  cluster.draw(1, [&](const replay::SampledBatch& batch) { batches.push_back(batch); });
  for (std::size_t i = 0; i < batch_size; ++i) {
    const auto item = item_of(batches[1], i);
    const auto s = population.shard[item];
    const double wanted = before.mass[s] / before.total * population.leaf[item] / mass[s];
    REQUIRE(batches[1].table.leaves[i] == population.leaf[item]);
    REQUIRE(batches[1].probability[i] == Approx(wanted).epsilon(1e-15).margin(0));
  }
}

TEST_CASE("sampling: the uniform selector gives every shard its share by count, batch by batch", "[sampling]") {
  Cluster cluster("uniform");
  const Population population;
  const auto check_batch = [&](const replay::SampledBatch& batch) {
    std::array<double, shard_count> seen{};
    for (std::size_t i = 0; i < batch.size(); ++i) {
      ++seen[population.shard[item_of(batch, i)]];
      REQUIRE(batch.probability[i] == Approx(1.0 / static_cast<double>(population.size())).epsilon(1e-15).margin(0));
    }
    for (std::size_t s = 0; s < shard_count; ++s) {
      // Stratified draws: a share of x gets floor or ceiling of x draws, one more where strata are cut on both sides.
      const double wanted = batch_size * static_cast<double>(counts[s]) / static_cast<double>(population.size());
      REQUIRE(std::abs(seen[s] - wanted) <= 2);
    }
  };
  cluster.draw(50, check_batch);
  // A shard that comes back is asked for its state, while the others were last heard in a sample's reply: both must
  // speak of mass in the same way.
  cluster.lose_and_find(2);
  cluster.draw(50, check_batch);
}

}  // namespace qanat::system_test
