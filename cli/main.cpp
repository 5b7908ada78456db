// The command line: parses, calls one library function, turns exceptions into exit codes.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <span>

#include "cli/commands.h"
#include "cli/doctor.h"
#include "cli/env_commands.h"
#include "cli/env_list.h"
#include "cli/env_new.h"
#include "cli/evaluate.h"
#include "cli/roles.h"
#include "cli/train.h"
#include "cli/version.h"
#include "core/error.h"
#include "core/limits.h"
#include "envs/env_handle.h"
#include "envs/host/keeper.h"

namespace {

using namespace qanat;

constexpr int exit_failure = 1;
constexpr int exit_config = 2;

void add_role_options(CLI::App* app, cli::RoleOptions& role, bool required) {
  app->add_option("--connect", role.connect, "Address of the head, tcp://HOST:PORT; several are tried in turn")
      ->required(required);
  app->add_option("--index", role.index, "Number among its kind; left out: the head picks a free one");
  app->add_option("--log-dir", role.log_dir, "Directory for the log file; left out: standard error");
  app->add_option("--give-up", role.give_up_seconds, "Seconds to wait for the head's first answer")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app->add_flag("--supervised", role.supervised, "Started by `train`: leaves Ctrl-C to it, ends when it dies");
}

void add_train(CLI::App& app, cli::TrainOptions& train, int& code) {
  auto* sub = app.add_subcommand("train", "Train: start all processes of a run on this machine and watch over them");
  sub->add_option("config", train.config, "Configuration file (YAML); see `qanat config docs`")->required();
  sub->add_option("--name", train.name, "Name of the run (default: the configuration's)");
  sub->add_option("--runs-dir", train.runs_dir, "Where runs live")->capture_default_str();
  sub->add_option("--seed", train.seed, "Seed of everything random (default: the configuration's, or drawn)");
  sub->add_option("--set", train.overrides, "Override one setting: a.b=value; repeatable")->allow_extra_args(false);
  sub->add_flag("--resume", train.resume, "Go on with the run from its newest undamaged checkpoint");
  sub->add_flag("--from-scratch", train.from_scratch,
                "With --resume: begin again at update 0 when there is no checkpoint to go on from");
  sub->add_option("--init-from", train.init_from, "Weights to start from: a checkpoint directory or a weights file");
  sub->add_flag("--lockstep", train.lockstep,
                "All in one process on one thread, bit-for-bit repeatable; needs stop.updates");
  sub->callback([&] { code = cli::train(train); });
}

void add_evaluate(CLI::App& app, cli::RoleOptions& role, cli::EvaluateOptions& evaluate, int& code) {
  auto* sub =
      app.add_subcommand("evaluate", "Evaluate a run's weights once (RUN_DIR), or keep evaluating a run (--connect)");
  sub->add_option("run_dir", evaluate.run_dir, "Directory of a run");
  sub->add_option("--episodes", evaluate.episodes, "Episodes to play (default: the run's evaluation.final_episodes)");
  sub->add_flag("--last", evaluate.last, "The newest checkpoint's weights, not the best");
  sub->add_option("--set", evaluate.overrides,
                  "Override one of the run's settings: env.plugin=PATH where files lie elsewhere by now; repeatable")
      ->allow_extra_args(false);
  add_role_options(sub, role, false);
  sub->callback([&] {
    if (!evaluate.run_dir.empty()) {
      code = cli::evaluate_command(evaluate);
    } else if (!role.connect.empty()) {
      cli::run_evaluator(role);
    } else {
      throw ConfigError("evaluate needs a run's directory, or --connect ADDRESS to take part in one");
    }
  });
}

void add_config(CLI::App& app, std::string& file, std::vector<std::string>& overrides) {
  auto* sub = app.add_subcommand("config", "About configurations");
  sub->require_subcommand(1);
  sub->add_subcommand("schema", "Print the JSON Schema of configurations, for editors")->callback([] {
    cli::print_schema();
  });
  sub->add_subcommand("docs", "Print the reference page of all settings")->callback([] { cli::print_reference(); });
  auto* show = sub->add_subcommand("show", "Check a configuration and print it complete");
  show->add_option("config", file, "Configuration file")->required();
  show->add_option("--set", overrides, "Override one setting: a.b=value; repeatable")->allow_extra_args(false);
  show->callback([&] { cli::print_config(file, overrides); });
}

struct EnvOptions {
  bool list_options = false;
  cli::EnvArgument argument;
  envs::CheckOptions check;
  envs::BenchOptions bench;
  bool json = false;
  cli::PlayOptions play;
  cli::EnvNewOptions create;
  std::string cpp, python;
  std::vector<int> descriptors;
};

void add_env_argument(CLI::App* sub, cli::EnvArgument& argument) {
  sub->add_option("env", argument.name, "A built-in id, a plug-in (.so), gymnasium:ID, or a configuration (.yaml)")
      ->required();
  sub->add_option("--set", argument.overrides, "Override one setting: env.options=sides=3; repeatable")
      ->allow_extra_args(false);
}

void add_env(CLI::App& app, EnvOptions& options, int& code) {
  auto* env = app.add_subcommand("env", "About environments");
  env->require_subcommand(1);
  auto* list = env->add_subcommand("list", "List the built-in environments");
  list->add_flag("--options", options.list_options, "With the options of each, for env.options");
  list->callback([&] { cli::print_environments(options.list_options); });

  auto* serve = env->add_subcommand("serve", "");  // how env.isolate starts its processes
  serve->group("");
  serve->add_option("descriptors", options.descriptors)->required()->expected(3);
  serve->callback([&] { cli::serve_environment(options.descriptors); });

  auto* create = env->add_subcommand("new", "Write a template of an environment of your own, with test and config");
  auto* language = create->add_option_group("language")->require_option(1);
  language->add_option("--cpp", options.cpp, "In C++: its name, as my_env");
  language->add_option("--python", options.python, "In Python: its name, as my_env");
  create->add_option("--dir", options.create.directory, "Where to (default: ./NAME)");
  create->callback([&] {
    const bool cpp = options.python.empty();
    options.create.language = cpp ? cli::EnvLanguage::cpp : cli::EnvLanguage::python;
    options.create.name = cpp ? options.cpp : options.python;
    code = cli::env_new(options.create);
  });

  auto* check = env->add_subcommand("check", "Play an environment hard and say what is wrong with it");
  add_env_argument(check, options.argument);
  check->add_option("--slots", options.check.slots, "Slots of the batch")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  check->add_option("--steps", options.check.steps, "Steps of the longest part")
      ->capture_default_str()
      ->check(CLI::Range(20, 100'000'000));
  check->add_option("--seconds", options.check.seconds, "At most, for each part")->capture_default_str();
  check->add_option("--timeout", options.check.call_timeout_seconds, "Seconds that a reset or step may take")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  check->add_option("--seed", options.check.seed, "Of actions and episodes")->capture_default_str();
  check->callback([&] { code = cli::env_check(options.argument, options.check); });

  auto* bench = env->add_subcommand("bench", "Measure an environment's steps per second, bare and through us");
  add_env_argument(bench, options.argument);
  bench->add_option("--slots", options.bench.slots, "Slots of the batch")
      ->capture_default_str()
      ->check(CLI::Range(1, 65536));
  bench->add_option("--seconds", options.bench.seconds, "Of each measurement")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  bench->add_flag("--json", options.json, "One line of JSON");
  bench->callback([&] { code = cli::env_bench(options.argument, options.bench, options.json); });

  auto* play = env->add_subcommand("play", "Write episodes as an animated PNG");
  add_env_argument(play, options.argument);
  play->add_option("--episodes", options.play.episodes, "How many")->capture_default_str();
  play->add_option("--policy", options.play.policy, "random, or the directory of a run: its best weights, greedy")
      ->capture_default_str();
  play->add_option("--output", options.play.output, "The file")->capture_default_str();
  play->add_option("--seed", options.play.seed, "Of the episodes, and of random actions")->capture_default_str();
  play->add_option("--max-frames", options.play.max_frames, "The film stops there")->capture_default_str();
  play->callback([&] { code = cli::env_play(options.argument, options.play); });
}

int parse_and_run(int argc, char** argv) {
  CLI::App app{"Qanat: distributed Q-learning"};
  app.set_version_flag("--version", std::string("qanat ") + cli::version + " (" + cli::commit + ")");
  app.require_subcommand(1);
  app.footer(
      "Exit codes: 0 done, 1 failed, 2 a setting, a flag or the environment is wrong, 85 stopped and resumable, 130 "
      "interrupted.");
  int code = 0;
  cli::TrainOptions train;
  add_train(app, train, code);

  cli::HeadProcessOptions head;
  auto* head_app = app.add_subcommand("head", "The head: who is in the run, epochs, the replay-ratio ledger");
  std::string head_config;
  head_app->add_option("--config", head_config, "Configuration: makes RUN_DIR; left out: RUN_DIR/config.yaml is there");
  head_app->add_option("--run-dir", head.run_dir, "Directory of the run")->required();
  head_app->add_option("--bind", head.bind, "Further addresses to listen on (ipc://PATH)");
  head_app->add_option("--resume-from", head.resume_from, "Checkpoint directory to go on from");
  head_app->add_option("--epoch", head.epoch, "Epoch of the run");
  head_app->add_flag("--supervised", head.supervised, "Started by `train`");
  head_app->callback([&] {
    if (!head_config.empty()) cli::make_run_directory(head_config, head.run_dir);
    cli::run_head(head);
  });

  cli::RoleOptions learner;
  std::string init_from;
  auto* learner_app = app.add_subcommand("learner", "A learner: draws batches, updates, publishes weights, saves");
  add_role_options(learner_app, learner, true);
  learner_app->add_option("--init-from", init_from, "Weights to start from: a checkpoint directory or a weights file");
  learner_app->callback([&] { cli::run_learner(learner, init_from); });

  cli::RoleOptions replay;
  auto* replay_app = app.add_subcommand("replay", "A replay shard");
  add_role_options(replay_app, replay, true);
  replay_app->callback([&] { cli::run_replay(replay); });

  cli::RoleOptions actor;
  auto* actor_app = app.add_subcommand("actor", "An actor: steps environments, sends experience");
  add_role_options(actor_app, actor, true);
  actor_app->callback([&] { cli::run_actor(actor); });

  cli::RoleOptions evaluator;
  cli::EvaluateOptions evaluate;
  add_evaluate(app, evaluator, evaluate, code);

  std::string config_file;
  std::vector<std::string> overrides;
  add_config(app, config_file, overrides);

  EnvOptions env;
  add_env(app, env, code);

  app.add_subcommand("doctor", "What this machine offers: processor, GPU, libraries, and what is missing")
      ->callback([&] { code = cli::doctor(); });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : exit_config;
  }
  return code;
}

bool returned = false;  // from main's work, and not by exit() in somebody else's code

void check_end(int status, void*) {
  if (returned) return;
  std::fprintf(stderr, "qanat: an environment or a library called exit(%d)\n", status);
  std::fflush(nullptr);
  _exit(status == 0 ? exit_failure : status);
}

int guarded(int argc, char** argv) {
  try {
    return parse_and_run(argc, argv);
  } catch (const ConfigError& error) {
    std::fprintf(stderr, "qanat: %s\n", error.what());
    return exit_config;
  } catch (const envs::EnvironmentGivenUp& error) {
    // It is the user's to mend, as a setting is, and another start would only repeat it.
    std::fprintf(stderr, "qanat: %s\n", error.what());
    return exit_config;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "qanat: %s\n", error.what());
    return exit_failure;
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::span<char* const> arguments(argv + 1, static_cast<std::size_t>(std::max(argc, 1) - 1));
  if (qanat::envs::host::is_keeper(arguments)) return qanat::envs::host::keep(arguments);
  on_exit(check_end, nullptr);
  qanat::raise_limits();
  const int code = guarded(argc, argv);
  returned = true;
  return code;
}
