#include "actors/evaluator.h"

#include <cmath>

#include "core/error.h"
#include "tests/actors/small_run.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::actors;

namespace {

EvaluatorOptions options_of() {
  EvaluatorOptions options;
  options.member = member_options(wire::Role::evaluate, 50);
  options.evaluation.episodes = 30;
  options.evaluation.every_seconds = 3;
  options.environment = {.id = "catch", .options = {}};
  options.network.hidden = {16};
  options.seed = 21;
  return options;
}

nn::NetworkSpec network_for(const EvaluatorOptions& options) {
  return network_of(options.network, envs::make(options.environment, 1)->spec(), options.stack);
}

}  // namespace

TEST_CASE("evaluator: it plays the newest weights, reports, and waits before it asks again") {
  SmallRun run(1);
  const auto options = options_of();
  const auto network = network_for(options);
  Evaluator evaluator(run.context, run.clock, run.log, options);
  run.publish(network, 7, 8);
  std::vector<control::WeightPublisher::Evaluation> reports;
  const auto reported = [&] {
    for (auto& evaluation : run.publisher.take_evaluations()) reports.push_back(std::move(evaluation));
    return reports.size();
  };
  run.until(evaluator, [&] { return reported() == 1; });
  CHECK(reports[0].report.version == wire::WeightVersion{1, 7});
  CHECK(reports[0].report.episodes == 30);
  CHECK(reports[0].report.mean_length == 9);
  CHECK(std::abs(reports[0].report.mean) <= 1);
  CHECK(reports[0].parameters.size() == nn::parameter_count(network));

  run.publish(network, 8, 9);
  run.publish(network, 9, 10);
  const auto before = run.clock.now();
  run.until(evaluator, [&] { return reported() == 2; });
  CHECK(run.clock.now() - before >= Milliseconds(2900));
  CHECK(reports[1].report.version == wire::WeightVersion{1, 9});
  CHECK(evaluator.evaluations() == 2);
}

TEST_CASE("evaluator: with nothing newer it does not play the same weights again") {
  SmallRun run(1);
  const auto options = options_of();
  Evaluator evaluator(run.context, run.clock, run.log, options);
  run.publish(network_for(options), 7, 8);
  for (int i = 0; i < 3000; ++i) {
    run.step();
    (void)evaluator.step();
  }
  CHECK(evaluator.evaluations() == 1);
}

TEST_CASE("evaluator: it leaves when the run ends, in the middle of an episode too") {
  SmallRun run(1);
  auto options = options_of();
  options.environment = {.id = "witness", .options = "dtype=f32,longest=1000000"};
  Evaluator evaluator(run.context, run.clock, run.log, options);
  run.publish(network_for(options), 7, 8);
  run.until(evaluator, [&] { return !evaluator.quiet(); });
  run.head.request_stop("enough");
  run.until(
      evaluator, [&] { return evaluator.finished(); }, 100);
  CHECK(evaluator.evaluations() == 0);
}

TEST_CASE("evaluator: one that hears no head for too long ends with an error") {
  SmallRun run(1);
  auto options = options_of();
  options.member.give_up = Seconds(5);
  Evaluator evaluator(run.context, run.clock, run.log, options);
  run.until(evaluator, [&] {
    run.publish(network_for(options), 1, 8);
    return evaluator.evaluations() == 1;
  });
  hear_nobody(run.clock, evaluator, Milliseconds(4900));
  CHECK_THROWS_AS(hear_nobody(run.clock, evaluator, Milliseconds(1000)), RunError);
}
