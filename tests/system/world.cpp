#include "tests/system/world.h"

#include "replay/run_schema.h"

namespace qanat::system_test {

World::World(cli::RunConfig run_config, const std::string& scheme)
    : config(std::move(run_config)),
      log({.who = "world", .path = directory / "world.log", .to_stderr = false}),
      publisher(context, {scheme == "tcp" ? "tcp://127.0.0.1:*" : "ipc://" + (directory / "weights").string()}),
      scheme_(scheme) {
  const auto spec = envs::make(config.env, 1)->spec();
  schema = actors::schema_of(spec);
  network = actors::network_of(config.network, spec, config.agent.stack);
  std::vector<std::size_t> row_bytes;
  const auto stored = replay::schema_of(schema, config.agent.normalize_rewards);
  for (const auto& column : stored.columns()) row_bytes.push_back(column.bytes());
  tape = std::make_unique<Tape>(row_bytes, schema.observations.size());
  auto options = cli::head_options(config, directory.path().string());
  options.bind = {address("head")};
  options.schema = {schema};
  head = std::make_unique<control::Head>(context, clock, log, options, nullptr);
  logs.resize(static_cast<std::size_t>(config.replay.shards));
  for (std::size_t i = 0; i < logs.size(); ++i) start_shard(i);
  join_learner();
  publish(1);
  actors.resize(static_cast<std::size_t>(config.actors.count));
}

control::MemberOptions World::member(wire::Role role, std::int64_t index, const std::string& head_address) {
  control::MemberOptions options;
  options.role = role;
  options.index = index;
  options.incarnation = next_incarnation_++;
  options.head = {head_address};
  options.heartbeat = Milliseconds(10);
  return options;
}

void World::start_shard(std::size_t index) {
  auto& interloper = *interlopers.emplace_back(std::make_unique<Interloper>(context, "tcp://127.0.0.1:*"));
  interloper.on_request([this](wire::Incoming& message) {
    tape->record(message);
    return true;
  });
  auto& registrar = *registrars.emplace_back(
      std::make_unique<Interloper>(context, address(text("registrar-", index)), head->addresses().front()));
  registrar.on_request([&interloper](wire::Incoming& message) {
    if (message.type != static_cast<std::uint16_t>(wire::MessageType::join)) return true;
    auto join = wire::decode<wire::Join>(message);
    for (auto& endpoint : join.endpoints) {
      if (endpoint.service != "insert") continue;
      interloper.set_server(endpoint.addresses.front());
      endpoint.addresses = {interloper.address()};
    }
    static_cast<wire::Message&>(message) = wire::encode(join);
    return true;
  });
  const cli::Parts parts{context,
                         clock,
                         log,
                         config,
                         member(wire::Role::replay, static_cast<std::int64_t>(index), registrar.address()),
                         {address(text("shard-", index))}};
  shards.push_back(cli::make_replay(parts));
}

void World::join_learner() {
  auto options = member(wire::Role::learner, 0, head->addresses().front());
  options.endpoints = publisher.endpoints();
  learner = std::make_unique<control::Member>(context, clock, options);
  replay::ClientOptions wanted;
  wanted.schema = replay::schema_of(schema, config.agent.normalize_rewards);
  wanted.stack = static_cast<std::uint32_t>(config.agent.stack);
  wanted.n_step = static_cast<std::uint32_t>(config.agent.n_step);
  wanted.batch = static_cast<std::uint32_t>(config.learner.batch);
  wanted.seed = 5;
  wanted.identity = "learner";
  client = std::make_unique<replay::ReplayClient>(context, clock, wanted);
  until([&] { return learner->alive(wire::Role::replay).size() == shards.size(); });
  std::vector<replay::ShardAddress> addresses;
  for (const auto* found : learner->alive(wire::Role::replay)) {
    addresses.push_back({found->index, found->incarnation, learner->address_of(*found, "sample")});
  }
  client->set_epoch(learner->epoch());
  client->set_shards(addresses);
  until([&] {
    return std::all_of(shards.begin(), shards.end(), [](const auto& one) { return one->shard() != nullptr; });
  });
}

void World::start_actor(std::size_t index, std::int64_t tag) {
  actors[index].reset();
  actors::ActorOptions options;
  options.member = member(wire::Role::actor, static_cast<std::int64_t>(index), head->addresses().front());
  options.actors = config.actors;
  options.environment = config.env;
  if (config.env.id == "witness") {
    options.environment.options += text(options.environment.options.empty() ? "" : ",", "actor=", tag);
  }
  options.agent = config.agent_view();
  options.network = config.network;
  options.stack = config.agent.stack;
  options.seed = cli::run_seed(config);
  options.resend_after = Milliseconds(100);  // not seconds: the test loses every tenth ack
  actors[index] = std::make_unique<actors::Actor>(context, clock, log, options);
}

bool World::round(int actor_steps) {
  bool any = head->step();
  any |= learner->step();
  any |= publisher.step();
  for (auto& one : registrars) any |= one->step();
  for (std::size_t i = 0; i < shards.size(); ++i) {
    any |= shards[i]->step();
    if (shards[i]->shard()) logs[i].follow(shard(i), *tape);
  }
  for (auto& one : interlopers) any |= one->step();
  for (auto& actor : actors) {
    for (int k = 0; actor && !actor->finished() && k < actor_steps; ++k) any |= actor->step();
  }
  any |= client && client->step();
  return any;
}

void World::publish(std::uint64_t version) {
  parameters.resize(nn::parameter_count(network));
  Rng rng(derive_seed(77, version));
  nn::initialise(network, rng, parameters);
  publisher.publish({1, version}, nn::layout_hash(network), parameters, statistics);
}

}  // namespace qanat::system_test
