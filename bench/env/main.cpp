// What it costs to step a Python environment through the host, against calling it directly, in the same run.
// Overhead is of the median batch, which other processes' turns on the machine hardly touch; the rate is of all
// batches.
//
// usage: bench_env [--json] [SECONDS]. Needs QANAT_TEST_PYTHON with gymnasium and, for the second part, ale-py. Direct
// and hosted slices alternate, so that a busy machine slows both alike; a slice is a fresh process on both sides.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/error.h"
#include "core/rng.h"
#include "envs/vector_env.h"

namespace {

using namespace qanat;

struct Case {
  std::string id;
  std::size_t slots;
  std::int64_t threads;
};

struct Rate {
  double seconds = 0, batches = 0;
  double median_us = 0;  // of a batch
  [[nodiscard]] double microseconds() const { return 1e6 * seconds / batches; }
};

constexpr int slices = 5;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

Rate direct(const Case& it, const std::string& python, double seconds) {
  const std::string command =
      text(python, " ", QANAT_BENCH_PEER, " ", it.id, " ", it.slots, " ", seconds, " ", it.threads, " 2>/dev/null");
  FILE* out = popen(command.c_str(), "r");
  Rate rate;
  const bool read =
      out != nullptr && std::fscanf(out, "%lf %lf %lf", &rate.seconds, &rate.batches, &rate.median_us) == 3;
  if (out != nullptr) pclose(out);
  if (!read) throw RunError(text("no answer from: ", command));
  return rate;
}

Rate hosted(const Case& it, const std::string& python, double seconds) {
  envs::EnvConfig config;
  config.gymnasium = it.id;
  config.python = python;
  config.atari.threads = it.threads;
  const auto env = envs::make(config, it.slots);
  std::vector<std::uint64_t> seeds(it.slots, 1);
  env->reset(seeds);
  Rng rng(1);
  std::vector<std::vector<std::int32_t>> actions(64);
  for (auto& batch : actions) {
    for (std::size_t s = 0; s < it.slots; ++s) {
      batch.push_back(static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(env->spec().action.n))));
    }
  }
  for (const auto& batch : actions) env->step(batch);
  const SteadyClock clock;
  const auto begin = clock.now();
  auto last = begin;
  std::vector<double> each;
  while (qanat::seconds(last - begin) < seconds) {
    env->step(actions[each.size() % actions.size()]);
    const auto now = clock.now();
    each.push_back(1e6 * qanat::seconds(now - last));
    last = now;
  }
  return {qanat::seconds(last - begin), static_cast<double>(each.size()), median(each)};
}

void compare(const Case& it, const std::string& python, double seconds, bool json) {
  std::vector<double> directly, through, overhead, kept;
  for (int i = 0; i < slices; ++i) {
    const Rate peer = direct(it, python, seconds / slices);
    const Rate ours = hosted(it, python, seconds / slices);
    directly.push_back(peer.median_us);
    through.push_back(ours.median_us);
    overhead.push_back(ours.median_us - peer.median_us);
    kept.push_back(peer.microseconds() / ours.microseconds());
  }
  if (json) {
    const auto line = [&](const char* what, double value, const char* unit) {
      std::printf(R"({"name": "env/%s/%zu_slots/%lld_threads/%s", "value": %.4g, "unit": "%s"})"
                  "\n",
                  it.id.c_str(), it.slots, static_cast<long long>(it.threads), what, value, unit);
    };
    line("direct", median(directly), "us");
    line("hosted", median(through), "us");
    line("overhead", median(overhead), "us");
    line("rate_kept", median(kept), "1");
  } else {
    std::printf(
        "%-12s %3zu slots, %lld threads: median batch %.1f us directly, %.1f us hosted, overhead %.1f us; "
        "%.1f%% of the direct rate kept\n",
        it.id.c_str(), it.slots, static_cast<long long>(it.threads), median(directly), median(through),
        median(overhead), 100 * median(kept));
  }
  std::fflush(stdout);
}

}  // namespace

int main(int count, char** arguments) {
  bool json = false;
  double seconds = 10;
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    char* end = nullptr;
    const double number = std::strtod(argument.c_str(), &end);
    if (argument == "--json") {
      json = true;
    } else if (!argument.empty() && *end == '\0' && number >= 0.5) {
      seconds = number;
    } else {
      std::printf(
          "usage: bench_env [--json] [SECONDS, at least 0.5: a CartPole case; Pong takes three times as long]\n");
      return argument == "--help" || argument == "-h" ? 0 : 2;
    }
  }
  const char* python = std::getenv("QANAT_TEST_PYTHON");
  if (python == nullptr) {
    std::fprintf(stderr, "bench_env: QANAT_TEST_PYTHON names no Python; scripts/setup --python makes one\n");
    return 2;
  }
  try {
    for (const std::size_t slots : {1U, 16U, 128U}) compare({"CartPole-v1", slots, 1}, python, seconds, json);
    for (const std::int64_t threads : {1, 2}) compare({"ALE/Pong-v5", 16, threads}, python, 3 * seconds, json);
  } catch (const Error& error) {
    std::fprintf(stderr, "bench_env: %s\n", error.what());
    return 1;
  }
  return 0;
}
