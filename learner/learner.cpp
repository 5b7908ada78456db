#include "learner/learner.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/checksum.h"
#include "core/error.h"
#include "core/files.h"
#include "replay/run_schema.h"

namespace qanat::learner {
namespace {

namespace fs = std::filesystem;
using wire::RunState;

constexpr int most_skipped_in_a_row = 10;
constexpr Milliseconds measure_every{250};
// How many updates ahead the ledger's lease reaches at most.
constexpr std::uint64_t lease_batches = 32;
// Until the head and who listens to it have heard that the last save failed.
constexpr Milliseconds hear_of_the_end{500};
// Items that are worth a message of their own.
constexpr std::uint64_t round_items = 256;

}  // namespace

Learner::Learner(wire::Context& context, const Clock& clock, Logger& log, LearnerOptions options)
    : context_(context),
      clock_(clock),
      log_(log),
      options_(std::move(options)),
      publisher_(context, options_.publish_addresses),
      member_(context, clock,
              [&] {
                options_.member.endpoints = publisher_.endpoints();
                return options_.member;
              }()),
      measured_(clock.now()),
      last_step_(clock.now()) {}

Learner::~Learner() = default;

bool Learner::step() {
  const auto begin = clock_.now();
  bool any = member_.step();
  if (finished_) return any;
  if (member_.abandoned()) throw RunError("no head was heard for too long: the learner ends");
  if (!member_.joined()) return any;
  if (!trainer_) {
    if (member_.state() >= RunState::closing) {  // it ended before anybody described an environment
      member_.leave(member_.stop_cause());
      finished_ = true;
      return any;
    }
    if (!member_.schema()) return any;
    build();
    any = true;
  }
  follow_directory();
  any |= publisher_.step();
  take_evaluations();
  any |= client_->step();
  continue_checkpoint();

  auto idle = Idle::no;
  request_batches();
  if (member_.state() == RunState::running) {
    if (train()) {
      any = true;
    } else if (short_of_credits()) {
      idle = Idle::for_credits;
    } else if (client_->in_flight() > 0) {
      idle = Idle::for_batch;
    }
  } else {
    finish_updates();
  }
  if (member_.state() >= RunState::closing) end();
  const bool training = wants_batches() || client_->in_flight() > 0;
  member_.use(trained_, training ? trained_ + lease_ahead() : trained_, 0);
  measure(begin, idle);
  return any;
}

std::vector<wire::Socket*> Learner::sockets() {
  std::vector<wire::Socket*> out{&member_.socket()};
  for (auto* socket : publisher_.sockets()) out.push_back(socket);
  if (client_) {
    for (auto* socket : client_->sockets()) out.push_back(socket);
  }
  return out;
}

void Learner::request_stop(const std::string& cause) {
  if (member_.joined()) {
    member_.stop_run(cause);
  } else {
    finished_ = true;
  }
}

void Learner::build() {
  const auto& welcome = member_.welcome();
  const auto& environment = *member_.schema();
  const auto checkpoints = fs::path(welcome.run_dir) / "checkpoints";
  make_directories(checkpoints);
  const auto& input = environment.observations.front();
  network_ = nn::build_network(options_.network, input.tensor, options_.agent.stack, input.high, environment.actions);
  layout_ = nn::layout_hash(*network_);
  nn::TrainerOptions trainer;
  const auto& optimizer = options_.learner.optimizer;
  trainer.batch = options_.learner.batch;
  trainer.td = options_.agent.td();
  trainer.optimizer = optimizer.kind;
  trainer.beta1 = optimizer.beta1;
  trainer.beta2 = optimizer.beta2;
  trainer.epsilon = optimizer.epsilon;
  trainer.rms_decay = optimizer.rms_decay;
  trainer.rms_centered = optimizer.rms_centered;
  trainer.max_grad_norm = optimizer.max_grad_norm;
  trainer.target_tau = options_.learner.target_tau;
  trainer.precision = options_.learner.precision;
  trainer.kernels = options_.learner.kernels;
  const auto chosen = nn::choose_device(options_.learner.device);
  // What is set for a GPU says nothing about the processor that takes its place.
  if (chosen.device == "cpu" && options_.learner.device == "auto") trainer.precision = trainer.kernels = "auto";
  trainer_ = nn::make_backend(chosen.device)->trainer(*network_, trainer);
  agent_.emplace(options_.agent, options_.replay.priority_epsilon, environment);

  replay::ClientOptions client;
  client.schema = replay::schema_of(environment, options_.agent.normalize_rewards);
  client.stack = static_cast<std::uint32_t>(options_.agent.stack);
  client.n_step = static_cast<std::uint32_t>(options_.agent.n_step);
  client.batch = static_cast<std::uint32_t>(options_.learner.batch);
  client.seed = derive_seed(options_.seed, static_cast<int>(wire::Role::learner), welcome.start_count);
  client.identity = text("learner-", member_.incarnation());
  client.prefetch = static_cast<std::uint32_t>(options_.learner.prefetch);
  client.silent_after = Seconds(options_.replay.silent_after_seconds);
  client_.emplace(context_, clock_, std::move(client));
  client_->set_epoch(member_.epoch());

  std::vector<float> parameters(nn::parameter_count(*network_));
  Rng rng(derive_seed(options_.seed, 0x6e6e));
  nn::initialise(*network_, rng, parameters);
  if (!options_.init_from.empty()) {
    fs::path file = options_.init_from;
    if (fs::is_directory(file)) file /= "weights.bin";
    auto weights = load_weights(file, *network_);
    parameters = std::move(weights.parameters);
    agent_->load_statistics(weights.statistics, file.string());
    log_.info("weights from ", file.string());
  }
  trainer_->set_parameters(parameters, parameters);
  best_.emplace(clock_, log_, checkpoints, *network_);
  CoordinatorOptions saving;
  saving.checkpoints = checkpoints;
  saving.commit = options_.member.commit;
  saving.keep = static_cast<std::size_t>(options_.checkpoint.keep);
  saving.replay = options_.checkpoint.replay;
  saves_.emplace(clock_, log_, std::move(saving), static_cast<SaveOthers&>(*this));
  if (!welcome.resume_from.empty()) load(welcome.resume_from);
  td_abs_.resize(static_cast<std::size_t>(options_.learner.batch));
  checkpoint_updates_ = updates_;
  checkpoint_time_ = clock_.now();
  log_.info("network of ", parameters.size(), " parameters on ", chosen.device, " (", chosen.why,
            "), starting at update ", updates_);
  publish();
  if (options_.stop.updates > 0 && limit_reached(updates_)) member_.stop_run("updates");
}

void Learner::load(const fs::path& directory) {
  const auto saved = load_learner(directory / "learner.bin");
  agent_->load_statistics(saved.statistics, (directory / "learner.bin").string());
  trainer_->set_parameters(saved.online, saved.target);
  trainer_->load_optimizer(saved.optimizer);
  updates_ = saved.updates;
  trained_before_ = saved.trained_steps;
  skipped_ = saved.skipped;
  Rng rng;
  rng.set_state(saved.sampling);
  client_->set_rng(rng);
  saves_->resumed_from(directory);
  member_.set_checkpoint(directory.string());
  log_.info("resumed from ", directory.string());
}

LearnerState Learner::state() {
  LearnerState out;
  const auto online = trainer_->parameters();
  out.online.assign(online.begin(), online.end());
  const auto target = trainer_->target_parameters();
  out.target.assign(target.begin(), target.end());
  out.optimizer = trainer_->save_optimizer();
  out.updates = updates_;
  out.trained_steps = trained_before_ + trained_;
  out.skipped = skipped_;
  out.sampling = client_->rng().state();
  out.statistics = agent_->normalization().save();
  return out;
}

void Learner::follow_directory() {
  client_->set_epoch(member_.epoch());
  if (member_.directory().version == directory_seen_) return;
  directory_seen_ = member_.directory().version;
  shards_.clear();
  for (const auto* shard : member_.alive(wire::Role::replay)) {
    const auto address = member_.address_of(*shard, "sample");
    if (!address.empty()) shards_.push_back({shard->index, shard->incarnation, address});
  }
  client_->set_shards(shards_);
}

// Whether `requested` batches in all are as many as may be trained on.
bool Learner::limit_reached(std::uint64_t requested) const {
  const auto stop = static_cast<std::uint64_t>(options_.stop.updates);
  return (stop > 0 && requested >= stop) || (pause_at_ > 0 && requested >= pause_at_);
}

// Whether one more may be asked for, besides those under way and `further` ones.
bool Learner::wants_batches(std::uint64_t further) const {
  return member_.state() == RunState::running && !limit_reached(updates_ + client_->in_flight() + further);
}

// Whether credits cover `further` batches and one more, besides those under way.
bool Learner::has_credits(std::uint64_t further) const {
  const auto batch = static_cast<std::uint64_t>(options_.learner.batch);
  return trained_ + (client_->in_flight() + further + 1) * batch <= member_.granted();
}

// Small batches travel several at a time, as long as another round is under way meanwhile.
std::uint64_t Learner::batches_a_round() const {
  const auto half = static_cast<std::uint64_t>(options_.learner.prefetch) / 2;
  return std::clamp<std::uint64_t>(round_items / static_cast<std::uint64_t>(options_.learner.batch), 1,
                                   std::max<std::uint64_t>(1, half));
}

// Whether there is room for another round: counting has begun, and not all of prefetch is under way.
bool Learner::has_room() const {
  return member_.grant().counting &&
         client_->in_flight() + batches_a_round() <= static_cast<std::uint64_t>(options_.learner.prefetch);
}

void Learner::request_batches() {
  while (has_room()) {
    std::uint64_t batches = 0;
    while (batches < batches_a_round() && wants_batches(batches) && has_credits(batches)) ++batches;
    if (batches == 0 || !client_->request(static_cast<std::uint32_t>(batches))) return;
  }
}

// More would be under way if the actors were further.
bool Learner::short_of_credits() const { return has_room() && wants_batches() && !has_credits(); }

// Trained steps that the lease should reach ahead: far enough that its round trip is not waited for, and not more than
// a quarter of what both sides may be apart, which would look like waiting.
std::uint64_t Learner::lease_ahead() const {
  const auto batch = static_cast<std::uint64_t>(options_.learner.batch);
  const auto least = batch * static_cast<std::uint64_t>(options_.learner.prefetch);
  if (options_.replay.ratio == 0) return std::max(2 * least, batch * lease_batches);
  const auto quarter = static_cast<std::uint64_t>(options_.ratio_window / 4);
  return std::max(least, std::min(batch * lease_batches, quarter));
}

double Learner::learning_rate() const {
  const auto& optimizer = options_.learner.optimizer;
  if (optimizer.anneal_updates == 0 || optimizer.final_learning_rate < 0) return optimizer.learning_rate;
  const double done = std::min(1.0, static_cast<double>(updates_) / static_cast<double>(optimizer.anneal_updates));
  return optimizer.learning_rate + done * (optimizer.final_learning_rate - optimizer.learning_rate);
}

double Learner::beta() const {
  const auto& replay = options_.replay;
  if (replay.selector == "uniform") return 0;
  const double done = std::min(1.0, static_cast<double>(updates_) / static_cast<double>(replay.beta_updates));
  return replay.beta_start + done * (replay.beta_end - replay.beta_start);
}

// Keeps the trainer supplied, and takes the oldest update's result when it can take no more or nothing is there for it.
// False: there was nothing to do.
bool Learner::train() {
  const auto row_memory = [&](std::size_t bytes) { return trainer_->row_memory(bytes); };
  while (running_.size() < trainer_->depth() && !limit_reached(updates_)) {
    // Rows that are normalised first stay in the batch: they reach the trainer's memory by way of the agent.
    auto batch = agent_->normalization().observations() ? client_->take() : client_->take(row_memory);
    if (!batch) break;
    // The next one is requested before this one is trained on, so that the shards work meanwhile.
    trained_ += batch->size();
    ++updates_;
    request_batches();
    start_update(std::move(*batch));
  }
  if (running_.empty()) return false;
  finish_update();
  after_updates();
  return true;
}

void Learner::start_update(replay::SampledBatch batch) {
  const auto begin = thread_cpu_time();
  const auto every = static_cast<std::uint64_t>(options_.learner.target_update_every);
  const nn::UpdateControls controls{learning_rate(), every > 0 && updates_ % every == 0};
  agent_->add_to_statistics(batch);
  agent_->normalize_rows(batch, [&](std::size_t bytes) { return trainer_->row_memory(bytes); });
  running_.push_back(std::move(batch));
  trainer_->submit(agent_->prepare(running_.back(), beta()), controls);
  trained_time_ += thread_cpu_time() - begin;
}

void Learner::finish_update() {
  const auto begin = thread_cpu_time();
  auto& batch = running_.front();
  const auto result = trainer_->collect(td_abs_);
  device_seconds_ += result.device_seconds;
  if (result.finite) {
    skipped_in_a_row_ = 0;
    client_->update_priorities(batch, agent_->priorities(td_abs_));
    loss_sum_ += result.loss;
    norm_sum_ += result.grad_norm;
    q_sum_ += result.mean_q;
    ++measured_updates_;
  } else {
    skip(batch, result);
  }
  client_->recycle(std::move(batch));
  running_.pop_front();
  trained_time_ += thread_cpu_time() - begin;
}

void Learner::finish_updates() {
  while (!running_.empty()) finish_update();
}

// What is due after so many updates or so much time: it reads the weights, so the trainer comes to rest first.
void Learner::after_updates() {
  const auto& checkpoint = options_.checkpoint;
  const auto reached = [](std::uint64_t count, std::int64_t limit) {
    return limit > 0 && count >= static_cast<std::uint64_t>(limit);
  };
  const bool by_time =
      checkpoint.every_seconds > 0 && seconds(clock_.now() - checkpoint_time_) >= checkpoint.every_seconds;
  // While one is under way there is no cause to come to rest for another.
  const bool saves =
      !saves_->under_way() &&
      (by_time || reached(updates_ - checkpoint_updates_, checkpoint.every_updates) || saves_->retry_due());
  const bool publishes = reached(updates_ - published_, options_.learner.publish_every);
  const bool stops = reached(updates_, options_.stop.updates);
  if (!saves && !publishes && !stops) return;
  finish_updates();
  if (publishes) publish();
  if (saves) begin_checkpoint();
  if (stops) member_.stop_run("updates");
}

void Learner::skip(const replay::SampledBatch& batch, const nn::UpdateResult& result) {
  ++skipped_;
  ++skipped_in_a_row_;
  log_.warn("update ", updates_, " was skipped: loss ", result.loss, ", gradient norm ", result.grad_norm);
  if (skipped_in_a_row_ < most_skipped_in_a_row) return;
  std::string handles;
  for (std::size_t i = 0; i < std::min<std::size_t>(batch.size(), 8); ++i) {
    const auto handle = batch.handle(i);
    handles += text(i ? ", " : "", handle.shard, '/', handle.slot, '/', handle.generation);
  }
  throw RunError(text(most_skipped_in_a_row, " updates in a row were not finite (loss ", result.loss,
                      "); items (shard/slot/generation) ", handles, batch.size() > 8 ? ", ..." : "",
                      "; the last good checkpoint is ", saves_->newest().empty() ? "none" : saves_->newest()));
}

void Learner::publish() {
  publisher_.publish({member_.epoch(), updates_}, layout_, trainer_->parameters(), agent_->normalization().save());
  published_ = updates_;
  member_.set_metric("updates", static_cast<double>(updates_));
}

void Learner::take_evaluations() {
  for (const auto& [report, parameters, statistics] : publisher_.take_evaluations()) {
    log_.info("evaluation of update ", report.version.version, ": mean ", report.mean, " +- ", report.standard_error,
              " over ", report.episodes, " episodes");
    member_.set_metric("evaluation_mean", report.mean);
    member_.set_metric("evaluation_update", static_cast<double>(report.version.version));
    // What has not learned anything is nobody's best; weights that a run began from may be.
    const bool untrained = report.version.version == 0 && options_.init_from.empty();
    if (!parameters.empty() && !untrained) {
      best_->offer({parameters, statistics},
                   {report.version.version, report.mean, report.standard_error, report.episodes});
    }
    if (options_.stop.at_target_score && report.mean >= options_.stop.target_score) member_.stop_run("target_score");
  }
}

std::vector<WrittenFile> Learner::save(const fs::path& directory) { return own_part()(directory); }

// As it is now, to be written by whichever thread.
CheckpointCoordinator::WriteOwn Learner::own_part() {
  return [now = std::make_shared<const LearnerState>(state()), network = *network_](const fs::path& directory) {
    return std::vector<WrittenFile>{save_weights(directory / "weights.bin", network, {now->online, now->statistics}),
                                    save_learner(directory / "learner.bin", *now)};
  };
}

std::vector<ShardLife> Learner::shards_alive() const {
  std::vector<ShardLife> alive;
  for (const auto& shard : shards_) alive.push_back({shard.index, shard.incarnation});
  return alive;
}

std::vector<ShardLife> Learner::save_shards(const std::string& directory) {
  client_->save(directory);
  return shards_alive();
}

void Learner::begin_checkpoint() {
  if (saves_->under_way()) return;
  checkpoint_updates_ = updates_;
  checkpoint_time_ = clock_.now();
  saves_->begin(updates_, own_part());
}

void Learner::continue_checkpoint() {
  best_->step();
  for (const auto& saved : client_->take_saves()) saves_->take_shard(saved.shard, saved.reply);
  if (const auto reply = member_.take_save()) saves_->take_head(*reply);
  saves_->step(shards_alive(), member_.env_steps());
  report_saves();
  const auto patience = Seconds(options_.checkpoint.give_up_seconds);
  if (patience.count() > 0 && saves_->failing_for() > patience) {
    member_.stop_run(text("failure: nothing could be saved for ", patience.count(), " s: ", saves_->error()));
  }
}

void Learner::report_saves() {
  if (!saves_->newest().empty()) member_.set_checkpoint(saves_->newest());
  member_.set_save_error(saves_->error());
  member_.set_metric("failed_saves", static_cast<double>(saves_->failed()));
}

// The run is closing: the last checkpoint, then goodbye.
void Learner::end() {
  if (!ending_) publish();
  ending_ = true;
  const auto how = saves_->end(updates_, [this] { return own_part(); });
  if (how == CheckpointCoordinator::End::not_yet || best_->writing()) return;
  report_saves();
  report_counts();
  const bool failed = how == CheckpointCoordinator::End::failed;
  if (failed && !ended_) {
    ended_ = clock_.now() + hear_of_the_end;
    member_.heartbeat_now();
  }
  if (failed && clock_.now() < *ended_) return;
  member_.leave(member_.stop_cause());
  finished_ = true;
  if (failed) {
    throw RunError(text("the run's end could not be saved: ", saves_->error(), "; the newest checkpoint is ",
                        saves_->newest().empty() ? "none" : saves_->newest()));
  }
}

std::uint64_t Learner::weights_hash() { return checksum(std::as_bytes(trainer_->parameters())); }

void Learner::report_counts() {
  member_.set_metric("updates", static_cast<double>(updates_));
  auto traffic = publisher_.traffic();
  traffic += member_.socket().traffic();
  if (client_) traffic += client_->traffic();
  member_.set_traffic(traffic);
}

void Learner::measure(Nanoseconds begin, Idle idle) {
  const auto now = clock_.now();
  // The sleep between the step before, which had nothing to train on, and this one.
  if (idle_ == Idle::for_batch) waited_ += begin - last_step_;
  if (idle_ == Idle::for_credits) held_ += begin - last_step_;
  idle_ = idle;
  last_step_ = now;
  if (now - measured_ < measure_every) return;
  const double elapsed = seconds(now - measured_);
  report_counts();
  member_.set_metric("learner_wait_share", seconds(waited_) / elapsed);
  member_.set_metric("learner_hold_share", seconds(held_) / elapsed);
  member_.set_metric("learner_device_share", device_seconds_ / elapsed);
  member_.set_metric("learner_train_share", seconds(trained_time_) / elapsed);
  member_.set_metric("skipped_updates", static_cast<double>(skipped_));
  member_.set_metric("learning_rate", learning_rate());
  member_.set_metric("importance_beta", beta());
  if (agent_ && agent_->normalization().rewards()) {
    member_.set_metric("return_deviation", std::sqrt(agent_->normalization().return_moments().variance(0)));
  }
  if (client_) member_.set_metric("mass_age_seconds", client_->mass_age().count());
  if (measured_updates_ > 0) {
    member_.set_metric("loss", loss_sum_ / measured_updates_);
    member_.set_metric("gradient_norm", norm_sum_ / measured_updates_);
    member_.set_metric("q_value", q_sum_ / measured_updates_);
  }
  measured_ = now;
  waited_ = held_ = trained_time_ = Nanoseconds{0};
  device_seconds_ = 0;
  loss_sum_ = norm_sum_ = q_sum_ = 0;
  measured_updates_ = 0;
}

}  // namespace qanat::learner
