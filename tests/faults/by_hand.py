"""Processes started by hand, that know only the head's address over tcp."""

import os
import re
import signal
import time

from support import CONFIGS, ENDLESS, Run, check, check_in, until


def actor_named(status, index):
    return next((p for p in status.get("processes", []) if (p["role"], p["index"]) == ("actor", index)), None)


def test_a_late_actor_acts_with_the_newest_weights_within_two_seconds_and_is_counted(place):
    # A large batch keeps the updates apart: three seconds of them are many more than one, the metrics' age.
    train = place.train(sets=[*ENDLESS, "learner.batch=256"])
    until(lambda: train.run.status().get("wall_seconds", 0) > 4, 20, "four seconds of training")
    address = re.search(r"--connect (tcp://\S+)", train.err).group(1)
    updates = train.run.status()["updates"]
    late = place.start("actor", "--connect", address)
    begin = time.monotonic()
    until(lambda: "joined as actor 2" in late.err, 2, "it joined")
    until(lambda: any(line.get("actors") == 3 for line in train.run.metrics()), 3, "the metric `actors` rises to 3")
    until(lambda: (actor_named(train.run.status(), 2) or {}).get("bytes_out", 0) > 10_000, 4, "it sends experience")
    check(time.monotonic() - begin < 4, "it is seen to act after", time.monotonic() - begin)
    acts = until(lambda: re.search(r"acts in \w+ with the weights of update (\d+), (\d+) ms after joining", late.err), 1, "weights")
    # What was published when it started is at most publish_every (50) updates older than what had been done then.
    check(int(acts[1]) >= updates - 50, "it acts with update", acts[1], "and", updates, "were done when it started")
    check(int(acts[2]) < 2000, "it got them after", acts[2], "ms")
    os.kill(late.pid, signal.SIGTERM)  # it leaves in good order, and the run goes on
    late.expect(0, 5)
    until(lambda: train.run.metrics()[-1].get("actors") == 2, 3, "the metric `actors` falls to 2")
    check("is lost" not in train.run.log("head-0"), "it said goodbye")
    os.kill(train.pid, signal.SIGTERM)
    train.expect(85, 20)
    summary = train.run.summary()
    check(actor_named(summary, 2)["pid"] == late.pid, "it is in the summary:", summary["processes"])
    check(summary["restarts"] == 0, "restarts", summary["restarts"])


def test_all_roles_by_hand(place):
    run = Run(place.runs / "by hand")
    head = place.start("head", "--config", CONFIGS / "catch.yaml", "--run-dir", run.path)
    until((run.path / "head.address").exists, 10, "the head's address")
    address = (run.path / "head.address").read_text().splitlines()[0]
    check_in("tcp://", address, "the head's address")
    roles = [place.start(role, "--connect", address) for role in ("replay", "learner", "actor", "evaluate", "replay", "actor")]
    until(lambda: run.status().get("updates", 0) > 100 and "evaluation_mean" in run.status().get("metrics", {}), 30,
          "training and evaluation")
    check(run.status()["metrics"]["actors"] == 2, "both actors are counted")
    if run.status()["state"] == "running":
        os.kill(head.pid, signal.SIGTERM)
    head.wait(15)
    for role in roles:
        role.expect(0, 10)
    check(run.checkpoints(), "the run was saved")
    place.check_nobody_left()


def test_roles_without_a_head_give_up_with_its_address(place):
    started = [place.start(role, "--connect", "tcp://127.0.0.1:1", "--give-up", 6)
               for role in ("learner", "replay", "actor", "evaluate")]
    for one in started:
        one.expect(1, 25)
        check_in("tcp://127.0.0.1:1", one.err, "the last word")


def test_a_head_over_an_existing_run_is_refused_a_new_configuration(place):
    run = place.runs / "taken"
    run.mkdir(parents=True)
    again = place.call("head", "--config", CONFIGS / "catch.yaml", "--run-dir", run).expect(2, 1)
    check_in("has no config.yaml", again.err, "the refusal")
