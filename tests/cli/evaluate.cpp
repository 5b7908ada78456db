// What a long evaluation says of itself.
#include "cli/evaluate.h"

#include "tests/support/catch.h"

using namespace qanat;
using cli::progress_text;

TEST_CASE("evaluation's progress: the time left follows from what was played, and from the bound where that is less") {
  // Ten of a hundred ended after 1,000 steps; 2,000 were played in 20 s: 10,000 in all, 80 s to go.
  const actors::EvaluationProgress now{
      .episodes = 10, .ended_steps = 1000, .steps = 2000, .seconds = 25, .playing = 20};
  CHECK(progress_text(now, 100, 0) == "evaluating: 10 of 100 episodes, 2000 steps | left 1m20s");
  CHECK(progress_text(now, 100, 600) == "evaluating: 10 of 100 episodes, 2000 steps | left 1m20s");
  CHECK(progress_text(now, 100, 60) == "evaluating: 10 of 100 episodes, 2000 steps | left 0m35s");
}

TEST_CASE("evaluation's progress: where those under way are longer than those that ended, episodes are counted") {
  // Ten ended after 10 steps each; the others have 20,000 so far.
  const actors::EvaluationProgress now{
      .episodes = 10, .ended_steps = 100, .steps = 20'100, .seconds = 25, .playing = 20};
  CHECK(progress_text(now, 100, 0) == "evaluating: 10 of 100 episodes, 20100 steps | left 3m00s");
}

TEST_CASE("evaluation's progress: before the first end only the bound is known, and before the first step less") {
  const actors::EvaluationProgress played{.steps = 2000, .seconds = 25, .playing = 20};
  CHECK(progress_text(played, 100, 0) == "evaluating: 0 of 100 episodes, 2000 steps | left ?");
  CHECK(progress_text(played, 100, 60) == "evaluating: 0 of 100 episodes, 2000 steps | left at most 0m35s");
  const actors::EvaluationProgress made{.seconds = 25};
  CHECK(progress_text(made, 100, 0) == "evaluating: making environments for 0m25s");
  CHECK(progress_text(made, 100, 60) == "evaluating: making environments for 0m25s | left at most 0m35s");
}
