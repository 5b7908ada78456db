#include "cli/roles.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "cli/bounded_logs.h"
#include "cli/child.h"
#include "cli/needs.h"
#include "cli/run_dir.h"
#include "cli/run_records.h"
#include "cli/socket_directory.h"
#include "cli/summary.h"
#include "cli/version.h"
#include "control/fetch_config.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/files.h"
#include "core/limits.h"
#include "core/metrics.h"
#include "core/process.h"
#include "wire/accept.h"
#include "wire/resolve.h"

namespace qanat::cli {
namespace {

namespace fs = std::filesystem;

// What comes by itself wakes a role: messages, signals. Its timers (heartbeats, messages to be sent again) are looked
// at this often.
constexpr Milliseconds tick{20};

void on_signal(int number) {
  auto& all = signals();
  int none = 0;
  all.which.compare_exchange_strong(none, number);
  if (number == SIGINT) all.interrupts.fetch_add(1);
  all.stop.store(true);
  // Whoever asks a third time is not heard: something that is not ours hangs on the main thread. A terminal that goes
  // away says so by itself, often more than once.
  if (number != SIGHUP && all.asked.fetch_add(1) >= 2) _exit(128 + number);
}

void on_orphaned(int) { signals().orphaned.store(true); }

volatile std::sig_atomic_t interrupted_code = 0;
volatile std::sig_atomic_t terminated_code = 0;
void on_signal_exit(int number) { _exit(number == SIGINT ? interrupted_code : terminated_code); }

void handle(int number, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  sigaction(number, &action, nullptr);
}

// What was ignored when we were started stays ignored: nohup and the background jobs of scripts rely on it.
void handle_unless_ignored(int number, void (*handler)(int)) {
  struct sigaction now = {};
  sigaction(number, nullptr, &now);
  if (now.sa_handler != SIG_IGN) handle(number, handler);
}

// What a role does when its supervisor dies: the head ends the run, the others follow it, all within orphan_limit.
enum class Orphan { follows, ends_the_run };

// Says, at most once a minute, that connections were refused.
class RefusedConnections {
 public:
  void say(const Clock& clock, Logger& log) {
    const auto all = wire::connections_refused();
    if (all == said_ || clock.now() < next_) return;
    log.warn("refused ", all - said_, " connections: ", descriptor_limit(),
             " descriptors (ulimit -n) are all there are, ", descriptor_reserve(descriptor_limit()),
             " of them for files");
    said_ = all;
    next_ = clock.now() + std::chrono::minutes(1);
  }

 private:
  std::uint64_t said_ = 0;
  Nanoseconds next_ = Nanoseconds::min();
};

// Steps the role until it is finished, or until an orphan's time is over.
void drive(control::Role& role, const Clock& clock, Logger& log, Orphan orphan) {
  RefusedConnections refused;
  auto& all = signals();
  std::optional<Nanoseconds> orphaned_at;
  bool asked = false;
  while (!role.finished()) {
    if (all.stop.load(std::memory_order_relaxed) && !asked) {
      asked = true;
      role.request_stop(all.which.load() == SIGINT ? "interrupted" : "terminated");
    }
    if (all.orphaned.load(std::memory_order_relaxed)) {
      if (!orphaned_at) {
        orphaned_at = clock.now();
        if (orphan == Orphan::ends_the_run) role.request_stop("the supervisor is gone");
      }
      if (clock.now() - *orphaned_at > orphan_limit) throw RunError("the supervisor is gone");
    }
    refused.say(clock, log);
    if (!role.step()) {
      const auto sockets = role.sockets();
      wire::wait(sockets, tick);
    }
  }
}

// The directory in which processes of this machine find each other: where the head's ipc socket is.
std::vector<std::string> addresses_for(const RoleOptions& options, const RunConfig& config, const std::string& name,
                                       std::uint64_t incarnation) {
  std::vector<std::string> out;
  for (const auto& head : options.connect) {
    if (!head.starts_with("ipc://")) continue;
    out.push_back(text(head.substr(0, head.rfind('/')), '/', name, '-', incarnation));
    break;
  }
  check_bind_host(config.control.bind_host, 0);
  out.push_back(text("tcp://", wire::host_to_bind(config.control.bind_host), ":*"));
  return out;
}

// Throws ConfigError. What is right in form and has a host may still be nowhere.
std::string resolved(const std::string& address) {
  if (address.starts_with("ipc://") && address.size() > 6) return address;
  const auto colon = address.rfind(':');
  if (address.starts_with("tcp://") && colon > 6 && colon + 1 < address.size() &&
      address.find_first_not_of("0123456789", colon + 1) == std::string::npos) {
    try {
      return wire::endpoint_to_connect(address);
    } catch (const ConfigError& error) {
      throw ConfigError(text("--connect ", address, ": ", error.what()));
    }
  }
  throw ConfigError(text("--connect ", address, ": wanted tcp://HOST:PORT or ipc://PATH"));
}

// Large batches come in by two connections or more: a thread of ZeroMQ's own for each of two, where there are
// processors.
int io_threads(std::string_view role) { return role == "learner" && std::thread::hardware_concurrency() >= 8 ? 2 : 1; }

// A process that is started again where nothing can be written any more goes on without a file.
std::unique_ptr<Logger> open_log(LogOptions options) {
  try {
    return std::make_unique<Logger>(options);
  } catch (const SystemError& error) {
    options.path.clear();
    options.to_stderr = true;
    auto log = std::make_unique<Logger>(options);
    log->warn(error.what());
    return log;
  }
}

struct Joined {
  wire::Context context;
  SteadyClock clock;
  std::unique_ptr<Logger> log;
  RunConfig config;
  std::uint64_t incarnation = control::new_incarnation();

  Joined(const RoleOptions& options, const std::string& role) : context(io_threads(role)) {
    LogOptions logging;
    logging.who = options.index >= 0 ? text(role, '-', options.index) : role;
    if (!options.log_dir.empty()) logging.path = fs::path(options.log_dir) / (logging.who + ".log");
    logging.to_stderr = !options.supervised;
    log = open_log(logging);
  }

  // Asks the head for the configuration. False: this process was asked to end before there was an answer.
  bool ask(const RoleOptions& options) {
    control::Patience patience;
    patience.limit = Seconds(options.give_up_seconds);
    patience.goes_on = [] { return !signals().stop.load() && !signals().orphaned.load(); };
    const auto reply = control::fetch_config(context, options.connect, patience, *log);
    if (reply) config = parse_run_config(reply->config, "the head's configuration");
    return reply.has_value();
  }

  Parts parts(const RoleOptions& options, wire::Role role) {
    control::MemberOptions member;
    member.role = role;
    member.index = options.index;
    member.incarnation = incarnation;
    member.head = options.connect;
    member.commit = commit;
    member.give_up = Seconds(config.control.give_up_seconds);
    member.log = log.get();
    return {context, clock,  *log,
            config,  member, addresses_for(options, config, std::string(wire::name_of(role)), incarnation)};
  }
};

// Runs a role with its boundary: whatever it throws is logged before it goes on.
template <class Make>
void run_role(RoleOptions options, wire::Role role, Make make) {
  for (auto& address : options.connect) address = resolved(address);
  install_signals(options.supervised);
  check_needs(wire::name_of(role));
  Joined joined(options, std::string(wire::name_of(role)));
  try {
    if (!joined.ask(options)) return;
    check_needs(wire::name_of(role), joined.config);
    const auto made = make(joined.parts(options, role));
    drive(*made, joined.clock, *joined.log, Orphan::follows);
    joined.log->info("done");
  } catch (const std::exception& error) {
    joined.log->error(error.what());
    throw;
  }
}

}  // namespace

Signals& signals() {
  static Signals all;
  return all;
}

void install_signals(bool supervised) {
  for (const int number : requests_to_end) {
    if (supervised) {
      handle(number, SIG_IGN);
    } else {
      handle_unless_ignored(number, on_signal);
    }
  }
  handle(orphaned_signal, on_orphaned);
  handle(SIGPIPE, SIG_IGN);
  handle(SIGXFSZ, SIG_IGN);  // a limit on files (ulimit -f) is a full disk, not the end
}

void check_bind_host(const std::string& host, std::int64_t port) {
  try {
    wire::check_listening(host, static_cast<std::uint16_t>(port));
  } catch (const ConfigError& error) {
    throw ConfigError(text("control.bind_host: ", error.what()));
  }
}

void exit_on_signals(int interrupted, int terminated) {
  interrupted_code = interrupted;
  terminated_code = terminated;
  for (const int number : requests_to_end) handle_unless_ignored(number, on_signal_exit);
}

control::LedgerOptions ledger_options(const RunConfig& config) {
  control::LedgerOptions options;
  options.ratio = config.replay.ratio;
  options.min_size = static_cast<std::uint64_t>(config.replay.min_size);
  options.window = config.ratio_window();
  options.batch = static_cast<std::uint64_t>(config.learner.batch);
  options.chunk = static_cast<std::uint64_t>(config.actors.chunk_steps);
  return options;
}

control::HeadOptions head_options(const RunConfig& config, const std::string& run_dir) {
  control::HeadOptions options;
  options.run_name = config.name;
  options.run_dir = run_dir;
  options.ledger = ledger_options(config);
  options.expected_shards = config.replay.shards;
  options.stop_env_steps = static_cast<std::uint64_t>(config.stop.env_steps);
  options.stop_wall_seconds = config.stop.wall_seconds;
  options.lost_after = Seconds(config.control.lost_after_seconds);
  options.metrics_every = Seconds(config.control.metrics_every_seconds);
  return options;
}

std::unique_ptr<learner::Learner> make_learner(Parts parts, const std::string& init_from) {
  learner::LearnerOptions options;
  const auto& config = parts.config;
  options.member = parts.member;
  options.publish_addresses = parts.bind;
  options.agent = config.agent;
  options.learner = config.learner;
  options.network = config.network;
  options.replay = config.replay;
  options.checkpoint = config.checkpoint;
  options.stop = config.stop;
  options.ratio_window = config.ratio_window();
  options.seed = run_seed(config);
  options.init_from = init_from;
  return std::make_unique<learner::Learner>(parts.context, parts.clock, parts.log, std::move(options));
}

std::unique_ptr<replay::ShardServer> make_replay(Parts parts) {
  replay::ServerOptions options;
  options.member = parts.member;
  options.bind = parts.bind;
  options.replay = parts.config.replay;
  options.ledger = ledger_options(parts.config);
  options.stack = static_cast<std::uint32_t>(parts.config.agent.stack);
  options.n_step = static_cast<std::uint32_t>(parts.config.agent.n_step);
  options.discounted_return = parts.config.agent.normalize_rewards;
  if (options.replay.ratio > 0) {
    // All shards together, at most the half of the window that inserts may fill.
    const auto half = parts.config.ratio_window() / 2 / options.replay.ratio;
    options.most_steps_ahead = static_cast<std::uint64_t>(half / static_cast<double>(options.replay.shards));
  }
  options.seed = run_seed(parts.config);
  return std::make_unique<replay::ShardServer>(parts.context, parts.clock, parts.log, std::move(options));
}

std::unique_ptr<actors::Actor> make_actor(Parts parts) {
  actors::ActorOptions options;
  options.member = parts.member;
  options.actors = parts.config.actors;
  options.environment = parts.config.env;
  options.agent = parts.config.agent_view();
  options.network = parts.config.network;
  options.stack = parts.config.agent.stack;
  options.seed = run_seed(parts.config);
  options.most_part_bytes = static_cast<std::size_t>(parts.config.replay.max_frame_megabytes) << 20;
  return std::make_unique<actors::Actor>(parts.context, parts.clock, parts.log, std::move(options));
}

std::unique_ptr<actors::Evaluator> make_evaluator(Parts parts) {
  actors::EvaluatorOptions options;
  options.member = parts.member;
  options.evaluation = parts.config.evaluation;
  options.environment = parts.config.env;
  options.network = parts.config.network;
  options.stack = parts.config.agent.stack;
  options.normalization = parts.config.agent.normalization();
  options.seed = run_seed(parts.config);
  options.slots = static_cast<std::size_t>(parts.config.actors.slots);
  return std::make_unique<actors::Evaluator>(parts.context, parts.clock, parts.log, std::move(options));
}

void run_learner(const RoleOptions& options, const std::string& init_from) {
  run_role(options, wire::Role::learner, [&](Parts parts) { return make_learner(parts, init_from); });
}

void run_replay(const RoleOptions& options) { run_role(options, wire::Role::replay, make_replay); }
void run_actor(const RoleOptions& options) { run_role(options, wire::Role::actor, make_actor); }
void run_evaluator(const RoleOptions& options) { run_role(options, wire::Role::evaluate, make_evaluator); }

namespace {

// What the supervisor would have done, had it not died.
void remove_socket_directory(const std::vector<std::string>& bind) {
  for (const std::string_view address : bind) {
    if (!address.starts_with("ipc://")) continue;
    const auto directory = fs::path(address.substr(6)).parent_path();
    std::error_code ignored;
    if (directory.filename().string().starts_with("qanat-")) fs::remove_all(directory, ignored);
  }
}

// `train`, which has started us and will start these.
control::Supervisor supervisor_of(const RunConfig& config) {
  return {host_name(),
          getppid(),
          {{wire::Role::learner, 1},
           {wire::Role::replay, config.replay.shards},
           {wire::Role::actor, config.actors.count},
           {wire::Role::evaluate, 1}}};
}

}  // namespace

void run_head(const HeadProcessOptions& options) {
  install_signals(options.supervised);
  check_needs("head");
  const fs::path run_dir = options.run_dir;
  if (!fs::exists(run_dir / "config.yaml")) {
    throw ConfigError(text("no run in ", run_dir.string(), ": it has no config.yaml; begin one with --config FILE"));
  }
  const auto lock =
      options.supervised ? RunLock() : RunLock::take_over(run_dir, "head");  // the supervisor's is inherited
  const auto config = parse_run_config(read_text_file(run_dir / "config.yaml"), (run_dir / "config.yaml").string());
  check_needs("head", config);
  if (!options.supervised && !options.resume_from.empty()) learner::verify_checkpoint(options.resume_from);
  make_directories(run_dir / "logs");
  LogOptions logging;
  logging.who = "head-0";
  logging.path = run_dir / "logs" / "head-0.log";
  logging.to_stderr = !options.supervised;
  Logger log(logging);
  try {
    wire::Context context;
    const SteadyClock clock;
    auto head = head_options(config, fs::absolute(run_dir).string());
    if (options.supervised) head.supervisor = supervisor_of(config);
    head.config = read_text_file(run_dir / "config.yaml");
    head.resume_from = options.resume_from;
    if (!options.resume_from.empty()) head.updates_before = learner::read_manifest(options.resume_from).updates;
    head.epoch = options.epoch;
    head.bind = options.bind;
    head.most_actors = most_actors(descriptor_limit(), config);
    log.info(descriptor_limit(), " descriptors (ulimit -n) suffice for ", head.most_actors, " actors and evaluators");
    const auto port = config.control.port == 0 ? std::string("*") : std::to_string(config.control.port);
    head.bind.push_back(text("tcp://", wire::host_to_bind(config.control.bind_host), ':', port));
    std::optional<RunRecords> records;  // once it is known where the run goes on
    BoundedLogs logs(run_dir / "logs", static_cast<std::uint64_t>(config.control.max_log_bytes));
    control::Head role(context, clock, log, head, [&](const control::HeadStatus& status) {
      records->write(status);
      if (!options.supervised) logs.look(clock.now());
    });
    if (!options.resume_from.empty() && fs::exists(fs::path(options.resume_from) / "head.bin")) {
      const auto bytes = read_file(fs::path(options.resume_from) / "head.bin");
      ByteReader in(bytes, "head.bin");
      role.load(in);
    }
    // A head that somebody starts again without a checkpoint joins processes that have gone on.
    const bool begins = options.supervised || !options.resume_from.empty();
    records.emplace(run_dir, log, begins ? std::optional(metrics_start(role.status())) : std::nullopt);
    std::string addresses;
    for (const auto& address : role.addresses()) addresses += address + "\n";
    replace_file(run_dir / "head.address", addresses);
    drive(role, clock, log, Orphan::ends_the_run);
    records->write_status(role.status());
    if (signals().orphaned.load()) remove_socket_directory(options.bind);
    log.info("done");
  } catch (const std::exception& error) {
    log.error(error.what());
    throw;
  }
}

}  // namespace qanat::cli
