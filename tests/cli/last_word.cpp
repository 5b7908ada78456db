// What the console says last of a run that did not come to its end.
#include "cli/last_word.h"

#include "core/files.h"
#include "learner/checkpoint.h"
#include "tests/core/temporary_directory.h"
#include "tests/support/catch.h"

using namespace qanat;
using cli::last_word;

TEST_CASE("last word: a run that was stopped and saved goes on with --resume") {
  CHECK(last_word({{}, {}, 100, 120, "runs/x"}) == "stopped; go on with --resume (runs/x)");
  CHECK(last_word({"the head ended", {}, 100, 100, "runs/x"}) == "the head ended; go on with --resume (runs/x)");
}

TEST_CASE("last word: what was done since the newest checkpoint is called lost, with the cause") {
  CHECK(last_word({{}, "disk full", 150, 120, "runs/x"}) ==
        "stopped; the last checkpoint could not be saved: disk full; 30 updates are lost: --resume goes on from update "
        "120 (runs/x)");
  CHECK(last_word({"learner-0 ended: exit code 1: disk full", "disk full", 150, 120, "runs/x"}) ==
        "learner-0 ended: exit code 1: disk full; 30 updates are lost: --resume goes on from update 120 (runs/x)");
}

TEST_CASE("last word: without a checkpoint nothing promises one") {
  CHECK(last_word({{}, {}, 0, {}, "runs/x"}) ==
        "stopped; there is no checkpoint yet: --resume --from-scratch begins again (runs/x)");
  CHECK(last_word({{}, "read-only", 70, {}, "runs/x"}) ==
        "stopped; the last checkpoint could not be saved: read-only; there is no checkpoint, and all 70 updates are "
        "lost: "
        "--resume --from-scratch begins again (runs/x)");
}

TEST_CASE("last word: the newest complete checkpoint counts; what cannot be read is none") {
  const test::TemporaryDirectory run;
  CHECK(!cli::saved_updates(run / "absent"));
  make_directories(run / "checkpoints" / "step-0000000009");
  CHECK(!cli::saved_updates(run.path()));
  const auto directory = learner::new_checkpoint(run / "checkpoints", 7);
  make_directories(directory);
  learner::complete_checkpoint(directory, {7, 70, 0, "abc", {}, {}});
  CHECK(cli::saved_updates(run.path()) == 7U);
  write_file_atomically(directory / "manifest.json", "{");
  CHECK(!cli::saved_updates(run.path()));
}
