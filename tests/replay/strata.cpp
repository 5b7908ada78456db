// Batches whose items are so large that they are asked for a few at a time, drawn by real shards: stratified over the
// whole mass all the same, and with the reported probabilities although the mass moves between two requests.
#include <cmath>
#include <memory>

#include "replay/client.h"
#include "replay/shard.h"
#include "tests/replay/support.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::replay;

namespace {

constexpr std::uint32_t batch_size = 512;
constexpr std::uint32_t item_count = 4096;

// A shard behind a socket, of items 0 to 4095 in this order, each of two rows.
struct ServedShard {
  ServedShard(wire::Context& context, std::int64_t pixels) : router(context, wire::SocketKind::router) {
    Schema schema;
    schema.observations = {{"frame", DType::u8, {pixels}}};
    schema.action = {"action", DType::i32, {}};
    ShardOptions options;
    options.capacity_rows = 4 * item_count;
    options.alpha = 1;
    shard.emplace(options, schema);
    address = router.bind("inproc://served");
    std::vector<std::vector<std::byte>> columns;
    for (std::size_t c = 0; c < schema.column_count(); ++c) {
      columns.emplace_back((item_count + 1) * shard->column_bytes(c), std::byte{0});
    }
    columns.back()[0] = std::byte{flag_first};
    const std::vector<std::span<const std::byte>> views(columns.begin(), columns.end());
    ChunkView chunk;
    chunk.stream = {1, 0};
    chunk.rows = item_count + 1;
    chunk.columns = views;
    REQUIRE(shard->insert(chunk, -1).items == item_count);
    for (std::uint32_t i = 0; i < item_count; ++i) handles.push_back(shard->item({1, 0}, i)->handle);
  }

  void set(std::span<const float> priorities) { (void)shard->update_priorities(handles, priorities); }

  // Answers one request; false: there was none.
  bool serve() {
    const auto message = router.receive();
    if (!message) return false;
    if (message->type != static_cast<std::uint16_t>(wire::MessageType::sample_request)) return true;
    const auto request = wire::decode<wire::SampleRequest>(*message);
    wire::SampleReply reply{1, request.request, 10, request.count, 0, shard->mass(), shard->items(), 1};
    std::vector<wire::Frame> parts;
    if (request.count > 0) {
      Draw draw;
      REQUIRE(shard->draw(request.count, rng, DrawMode::by_mass, draw, {request.first, request.strata}));
      SampleTable table{.stack = 1, .n_step = 1};
      table.resize(request.count);
      for (std::size_t i = 0; i < request.count; ++i) {
        table.slots[i] = draw.handles[i].slot;
        table.generations[i] = draw.handles[i].generation;
      }
      table.leaves = draw.leaves;
      table.state = draw.states;
      table.next_state = draw.next_states;
      table.steps = draw.steps;
      reply.rows = static_cast<std::uint32_t>(draw.rows.size());
      parts.push_back(table.encode());
      parts.emplace_back(draw.rows.size() * shard->column_bytes(0));
      shard->gather(0, draw.rows, parts.back().mutable_bytes().data());
      largest = std::max(largest, parts.back().size());
      ++replies;
    }
    auto answer = wire::encode(reply, std::move(parts));
    REQUIRE(router.send_to(message->peer, answer) == wire::Sent::yes);
    return true;
  }

  wire::Socket router;
  std::optional<Shard> shard;
  std::string address;
  std::vector<Handle> handles;
  Rng rng{5};
  std::size_t largest = 0;
  std::size_t replies = 0;
};

struct Served {
  explicit Served(std::int64_t pixels) : shard(context, pixels) {
    ClientOptions options;
    options.schema = shard.shard->schema();
    options.batch = batch_size;
    options.seed = 2;
    options.identity = "learner";
    options.helpers = 0;
    client.emplace(context, clock, options);
    client->set_epoch(1);
    client->set_shards({{0, 10, shard.address}});
    clock.advance(std::chrono::seconds(1));
    (void)client->step();
    while (shard.serve()) {
    }
    (void)client->step();
  }

  // Between two answers `between` is called with the number of those given.
  template <class Between>
  SampledBatch draw(Between between) {
    REQUIRE(client->request());
    (void)client->step();
    for (int answers = 1; shard.serve(); ++answers) between(answers);
    (void)client->step();
    auto batch = client->take();
    REQUIRE(batch);
    return std::move(*batch);
  }

  wire::Context context{0};
  VirtualClock clock;
  ServedShard shard;
  std::optional<ReplayClient> client;
};

// How often each item is in the batch.
std::vector<int> counts_of(const SampledBatch& batch, const std::vector<Handle>& handles) {
  std::vector<int> counts(item_count, 0);
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const auto slot = batch.table.slots[i];
    const auto item = slot - handles[0].slot;  // one chunk into an empty shard: one slot after the other
    REQUIRE(handles.at(item).slot == slot);
    ++counts[item];
  }
  return counts;
}

double pairs_of(const std::vector<int>& counts) {
  double pairs = 0;
  for (const auto count : counts) pairs += count * (count - 1) / 2.0;
  return pairs;
}

}  // namespace

TEST_CASE("strata: a batch of large items holds as few equal pairs as one of small items") {
  constexpr int batches = 40;
  std::vector<float> priorities(item_count);
  Rng rng(3);
  double total = 0;
  for (auto& priority : priorities) total += priority = static_cast<float>(rng.uniform(0.5, 1.5));
  double independent = 0;
  for (const auto priority : priorities)
    independent += std::pow(priority / total, 2) * batch_size * (batch_size - 1) / 2;
  REQUIRE(independent > 30);
  double small_pairs = 0;
  for (const std::int64_t pixels : {4, 4 * 7056}) {
    Served served(pixels);
    served.shard.set(priorities);
    double pairs = 0;
    for (int b = 0; b < batches; ++b) {
      const auto batch = served.draw([](int) {});
      const auto counts = counts_of(batch, served.shard.handles);
      pairs += pairs_of(counts) / batches;
      for (std::size_t i = 0; i < batch.size(); ++i) {
        REQUIRE(batch.probability[i] < 1.0 / batch_size);
        REQUIRE(counts[batch.table.slots[i] - served.shard.handles[0].slot] <= 2);
      }
    }
    if (pixels == 4) {
      CHECK(served.shard.replies == batches);
      small_pairs = pairs;
    } else {
      CHECK(served.shard.replies >= batches * batch_size / 10);
      CHECK(served.shard.largest <= 512 << 10);
    }
    // Pairs are rare and nearly independent, so their number has about its mean as variance: 6 standard errors.
    CHECK(pairs < independent / 10);
    CHECK(std::abs(pairs - small_pairs) < 6 * std::sqrt(2 * std::max(small_pairs, pairs) / batches));
  }
}

// The items at the front are heavy and light in turn, from one request to the next: the others' places in the mass move
// by many strata, so that a fixed order of the strata would miss some of them and meet others twice.
TEST_CASE("strata: the probability is the one of each draw, although the mass moves between the requests of a batch") {
  constexpr int batches = 100;
  constexpr std::uint32_t heavy = 512;
  Served served(7056);
  std::vector<float> priorities(item_count, 1);
  std::vector<double> sums(8, 0);  // of 1 / (B P), by eighths of the light items
  double front = 0;
  for (int b = 0; b < batches; ++b) {
    const auto batch = served.draw([&](int answers) {
      std::fill_n(priorities.begin(), heavy, answers % 2 == 1 ? 4.0F : 1.0F);
      served.shard.set(priorities);
    });
    for (std::size_t i = 0; i < batch.size(); ++i) {
      const auto item = batch.table.slots[i] - served.shard.handles[0].slot;
      const double estimate = 1 / (batch_size * batch.probability[i]) / batches;
      if (item < heavy) {
        front += estimate;
      } else {
        sums[(item - heavy) * sums.size() / (item_count - heavy)] += estimate;
      }
    }
  }
  // Each item once in expectation. An eighth holds 448 light items, met by about 50 draws of a batch that may come
  // in any number of its requests: with independent draws the standard error of a sum is 448 / sqrt(50 * 100) = 6.4.
  for (const auto sum : sums) CHECK(std::abs(sum - 448) < 5 * 6.4);
  CHECK(std::abs(front - heavy) < 5 * 6.4);
}
