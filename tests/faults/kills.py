"""SIGKILL of every kind of process."""

import json
import os
import signal
import time

from support import ENDLESS, Run, check, check_in, until


def started(place, *sets):
    train = place.train(sets=[*ENDLESS, "checkpoint.every_seconds=1", *sets])
    train.until_training()
    return train


def kill(place, role, index=0):
    pid = until(lambda: place.role(role, index), 10, f"a process {role}-{index}")
    os.kill(pid, signal.SIGKILL)
    return pid


def starts(status, role, index=0):
    return next((p["starts"] for p in status["processes"] if (p["role"], p["index"]) == (role, index)), 0)


def check_goes_on(place, role, index=0):
    """Kills it: another takes its place, both sides make progress, and the restart is counted."""
    train = started(place)
    pid = kill(place, role, index)
    until(lambda: starts(train.run.status(), role, index) == 2, 15, f"a second start of {role}-{index}")
    before = train.run.status()
    until(lambda: all(train.run.status()[key] > before[key] for key in ("env_steps", "updates")), 15,
          "env steps and updates go on")
    os.kill(train.pid, signal.SIGTERM)
    train.expect(85, 20)
    summary = train.run.summary()
    check(summary["restarts"] == 1, "restarts", summary["restarts"])
    member = next(p for p in summary["processes"] if (p["role"], p["index"]) == (role, index))
    check(member["pid"] != pid and member["starts"] == 2, "the second process is the one in the summary:", member)
    check_in(f"{role}-{index} ended: killed by signal 9", train.run.log("train"), "train.log")
    return train


def test_a_killed_actor_is_restarted(place):
    check_goes_on(place, "actor")


def test_a_killed_evaluator_is_restarted(place):
    check_goes_on(place, "evaluate")


def test_a_killed_shard_does_not_stop_the_run(place):
    train = check_goes_on(place, "replay", 1)
    check(train.run.checkpoints(), "the run that lost a shard can still be saved")


def test_all_shards_killed_at_once_do_not_stop_the_run(place):
    train = started(place)
    for index in range(2):
        kill(place, "replay", index)
    until(lambda: all(starts(train.run.status(), "replay", index) == 2 for index in range(2)), 15, "both shards are back")
    before = train.run.status()
    until(lambda: train.run.status()["updates"] > before["updates"] + 200, 10, "updates go on with a new replay")
    os.kill(train.pid, signal.SIGTERM)
    train.expect(85, 20)
    check(train.run.summary()["restarts"] == 2, "restarts", train.run.summary()["restarts"])


def test_a_resumed_run_that_loses_its_replay_goes_on(place):
    train = place.train(sets=[*ENDLESS, "stop.updates=300"]).expect(0, 30)
    for shard in train.run.checkpoints()[-1].glob("shard-*.bin"):
        shard.unlink()
    place.train("--resume", sets=["stop.updates=600"]).expect(0, 20)


def test_an_actor_killed_again_and_again_ends_the_run(place):
    train = started(place, "control.max_restarts=2")
    for count in range(1, 4):
        kill(place, "actor")
        if count < 3:
            until(lambda: starts(train.run.status(), "actor") == count + 1, 15, f"start {count + 1} of actor-0")
    train.expect(1, 20)
    check_in("restarted often enough", train.err, "the last word")
    check_in("actor-0", train.run.summary()["stop_cause"], "stop_cause")


def test_a_killed_learner_ends_the_run_which_resumes_from_its_checkpoint(place):
    train = started(place)
    best = until(lambda: (train.run.path / "checkpoints/best/best.json").exists(), 20, "a periodic evaluation")
    train.run.until_checkpoint()
    kill(place, "learner")
    killed = time.monotonic()
    train.expect(1, 20)
    check(time.monotonic() - killed < 10, f"ended {time.monotonic() - killed:.1f} s after the kill")
    for words in ("learner-0", "signal 9", "--resume"):
        check_in(words, train.err, "the last word")
    check_in("learner-0 ended: killed by signal 9", train.run.summary()["stop_cause"], "stop_cause")
    place.check_nobody_left()
    manifest = json.loads((train.run.checkpoints()[-1] / "manifest.json").read_text())
    best = train.run.json("checkpoints/best/best.json")

    again = place.train("--resume")
    def resumed():
        status = again.run.status()
        return status.get("epoch", 0) == 2 and status.get("updates", 0) > 0 and status
    first = until(resumed, 20, "the resumed run's first status with updates")
    check(first["updates"] >= manifest["updates"], "updates went on from", manifest["updates"], "to", first["updates"])
    check(first["env_steps"] >= 0.9 * manifest["env_steps"], "env steps went on from", manifest["env_steps"], "to",
          first["env_steps"])
    again.until_training(manifest["updates"] + 50)
    for shard in range(2):
        check_in("restored ", again.run.log(f"replay-{shard}"), f"log of shard {shard}")
    os.kill(again.pid, signal.SIGTERM)
    again.expect(85, 20)
    check(again.run.json("checkpoints/best/best.json")["mean"] >= best["mean"], "the best score was kept")
    check(again.run.summary()["updates"] > manifest["updates"], "updates in the summary go on")


def test_a_killed_head_ends_the_run_with_the_cause(place):
    train = started(place)
    train.run.until_checkpoint()
    kill(place, "head")
    killed = time.monotonic()
    train.expect(1, 20)
    check(time.monotonic() - killed < 10, f"ended {time.monotonic() - killed:.1f} s after the kill")
    wall = train.run.status()["wall_seconds"]
    check_in("head-0 ended: killed by signal 9", train.err, "the last word")
    check_in("--resume", train.err, "the last word")
    check_in("head-0", train.run.summary()["stop_cause"], "stop_cause")
    place.train("--resume", sets=[f"stop.wall_seconds={wall + 1}"]).expect(0, 30)


def test_when_train_is_killed_every_child_ends_within_ten_seconds(place):
    train = started(place)
    os.kill(train.pid, signal.SIGKILL)
    train.wait(5)
    place.check_nobody_left(10)
    # The head was told by the kernel and ended the run in good order: nothing since the last checkpoint is lost.
    check(Run(train.run.path).status()["state"] == "ended", "state", train.run.status()["state"])
    place.train("--resume", sets=["stop.wall_seconds=1"]).expect(0, 30)


def test_when_train_and_learner_are_killed_together_every_child_ends_within_ten_seconds(place):
    train = started(place)
    learner = place.role("learner")
    for pid in (train.pid, learner):
        os.kill(pid, signal.SIGKILL)
    train.wait(5)
    place.check_nobody_left(10)
