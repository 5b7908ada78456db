"""Taken indices: who comes for a living process's place is refused, a dead one's is taken."""

import os
import re
import signal
import time

from support import CONFIGS, ENDLESS, Run, check, check_in, until


def test_strangers_for_taken_places_are_refused_and_the_run_does_not_notice(place):
    train = place.train(sets=ENDLESS)
    train.until_training()
    address = re.search(r"--connect (tcp://\S+)", train.err).group(1)
    begin = time.monotonic()
    wanted = [("actor", ("--index", 0), "index 2 is free"), ("replay", ("--index", 1), "index 2 is free"),
              ("evaluate", ("--index", 0), "index 1 is free"), ("learner", ("--index", 0), "a run has one learner"),
              ("learner", (), "a run has one learner"), ("learner", ("--index", 1), "a run has one learner")]
    strangers = [(place.start(role, "--connect", address, *index), words) for role, index, words in wanted]
    for stranger, words in strangers:
        stranger.expect(2, 15)
        check_in("the head refused us", stranger.err, "the last word")
        check_in(words, stranger.err, "the last word")
    seconds = time.monotonic() - begin
    before = train.run.status()
    until(lambda: all(train.run.status()[key] > before[key] for key in ("env_steps", "updates")), 15, "the run goes on")
    os.kill(train.pid, signal.SIGTERM)
    train.expect(85, 20)
    summary = train.run.summary()
    check(summary["restarts"] == 0, "restarts", summary["restarts"])
    check(summary["epoch"] == 1, "the epoch of one learner:", summary["epoch"])
    check(all(p["starts"] == 1 for p in summary["processes"]), "everybody joined once:", summary["processes"])
    check(seconds < 15, f"they were refused within {seconds:.1f} s")


def test_by_hand_a_dead_one_is_replaced_soon_and_a_living_one_is_not(place):
    run = Run(place.runs / "by hand")
    head = place.start("head", "--config", CONFIGS / "catch.yaml", "--run-dir", run.path)
    until((run.path / "head.address").exists, 10, "the head's address")
    address = (run.path / "head.address").read_text().splitlines()[0]
    connect = ("--connect", address)
    others = [place.start(role, *connect) for role in ("replay", "learner", "replay")]
    first = place.start("actor", *connect, "--index", 0)
    until(lambda: run.status().get("updates", 0) > 10, 30, "training")

    second = place.start("actor", *connect, "--index", 0)
    second.expect(2, 10)
    check_in("index 1 is free", second.err, "the refusal")
    learner = place.start("learner", *connect)
    learner.expect(2, 10)
    check_in("a run has one learner", learner.err, "the refusal")

    os.kill(first.pid, signal.SIGKILL)
    first.wait(5)
    begin = time.monotonic()
    third = place.start("actor", *connect, "--index", 0)
    until(lambda: "joined as actor 0, start 1" in third.err, 10, "the next process has the dead one's place")
    waited = time.monotonic() - begin
    check_in("waiting to join: actor-0 is pid", third.err, "what it waits for")
    check(1 < waited < 6, f"it waited {waited:.1f} s")
    os.kill(head.pid, signal.SIGTERM)
    head.wait(15)
    for role in [*others, third]:
        role.expect(0, 10)
    place.check_nobody_left()


def test_a_shard_that_finds_the_head_paused_waits_and_says_so(place):
    run = Run(place.runs / "by hand")
    head = place.start("head", "--config", CONFIGS / "catch.yaml", "--run-dir", run.path)
    until((run.path / "head.address").exists, 10, "the head's address")
    address = (run.path / "head.address").read_text().splitlines()[0]
    os.kill(head.pid, signal.SIGSTOP)
    shard = place.start("replay", "--connect", address)
    impatient = place.start("replay", "--connect", address, "--give-up", 2)
    impatient.expect(1, 10)
    check_in(f"no head answered within 2 s at {address}", impatient.err, "the last word")
    until(lambda: f"no head has answered for 5 s at {address}: waiting, until 120 s are over" in shard.err, 15,
          "it says what it waits for")
    os.kill(head.pid, signal.SIGCONT)
    until(lambda: "replay-0 joined" in run.log("head-0"), 10, "the shard joins")
    os.kill(head.pid, signal.SIGTERM)
    head.wait(15)
    shard.expect(0, 10)
