"""Ctrl-C, twice, SIGTERM, a terminal that goes away, and signals that are ignored."""

import os
import random
import signal
import time

from support import ENDLESS, check, check_in, until


def check_resumable(place, train):
    """The run was saved, and goes on from there."""
    saved = train.run.checkpoints()
    check(saved, "there is a checkpoint")
    updates = int(saved[-1].name[5:])
    check(train.run.summary()["updates"] <= updates, "nothing trained was lost: the checkpoint is of update", updates)
    again = place.train("--resume", sets=[f"stop.updates={updates + 4000}"]).expect(0, 40)
    summary = again.run.summary()
    check(summary["stop_cause"] == "updates", "stop_cause", summary["stop_cause"])
    check(summary["wall_seconds"] > train.wall_seconds, "wall seconds are of all the run")
    check_in("resumed from " + str(saved[-1]), again.run.log("learner-0"), "the learner's log")
    check_in(f"starting at update {updates}", again.run.log("learner-0"), "the learner's log")
    for shard in range(2):
        check_in("restored ", again.run.log(f"replay-{shard}"), f"the log of shard {shard}")


def stopped(place, number, code):
    train = place.train(sets=ENDLESS)
    train.until_training()
    train.signal_group(number)
    train.expect(code, 20)
    place.check_nobody_left()
    train.wall_seconds = train.run.summary()["wall_seconds"]
    return train


def test_ctrl_c_drains_and_saves(place):
    train = stopped(place, signal.SIGINT, 130)
    for words in ("stopping", "Ctrl-C again", "--resume"):
        check_in(words, train.err, "what the user reads")
    check(train.run.summary()["stop_cause"] == "interrupted", "stop_cause", train.run.summary()["stop_cause"])
    check(train.run.summary()["restarts"] == 0, "nobody was restarted")
    check_resumable(place, train)


def test_sigterm_saves_and_asks_to_be_run_again(place):
    train = stopped(place, signal.SIGTERM, 85)
    check(train.run.summary()["stop_cause"] == "terminated", "stop_cause", train.run.summary()["stop_cause"])
    check_resumable(place, train)


def test_a_terminal_that_goes_away_saves_too(place):
    train = stopped(place, signal.SIGHUP, 85)
    check(train.run.summary()["stop_cause"] == "terminated", "stop_cause", train.run.summary()["stop_cause"])
    check(train.run.summary()["restarts"] == 0, "nobody was restarted")
    check_resumable(place, train)


def test_what_was_ignored_at_the_start_stays_ignored(place):
    ignoring = place.path / "ignoring"  # as a script's background job ignores SIGINT, and nohup SIGHUP
    ignoring.write_text(f"#!/bin/sh\ntrap '' INT TERM HUP\nexec {place.program} \"$@\"\n")
    ignoring.chmod(0o755)
    place.program = str(ignoring)
    train = place.train(config="cartpole.yaml", sets=["stop.updates=1500", "stop.at_target_score=false",
                                                      "evaluation.final_episodes=1000000", "actors.count=1"])
    train.until_training()
    ignored = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in ignored:
        train.signal_group(number)
    until(lambda: "evaluating" in train.err or train.ended(), 60, "the final evaluation")
    check(not train.ended() and train.run.summary()["stop_cause"] == "updates", "it ended:", train.err)
    for number in ignored:
        train.signal_group(number)
    time.sleep(0.3)
    check(not train.ended(), "nor do they end the evaluation")
    train.signal_group(signal.SIGUSR1)
    train.expect(85, 5)


def test_sigusr1_to_train_alone_is_the_same(place):
    train = place.train(sets=ENDLESS)
    train.until_training()
    os.kill(train.pid, signal.SIGUSR1)
    train.expect(85, 20)


def test_a_second_ctrl_c_ends_at_once(place):
    train = place.train(sets=ENDLESS)
    train.until_training()
    os.kill(place.role("learner"), signal.SIGSTOP)  # so that the saving takes longer than anyone would wait
    train.signal_group(signal.SIGINT)
    until(lambda: "Ctrl-C again" in train.err, 5, "the first Ctrl-C is answered")
    time.sleep(0.5)
    check(not train.ended(), "it waits for the learner")
    train.signal_group(signal.SIGINT)
    train.expect(130, 2)
    place.check_nobody_left()


def test_ctrl_c_at_any_moment_of_the_start_leaves_nothing(place):
    moments = random.Random(5)
    for attempt in range(5):
        train = place.train(name=f"run{attempt}", sets=ENDLESS)
        time.sleep(moments.uniform(0, 0.3))
        train.signal_group(signal.SIGINT)
        code = train.wait(20)
        # Before it has read its configuration it dies of the signal, as any program.
        check(code in (130, -signal.SIGINT), f"exit code {code}\n{train.err}{train.run.last_words()}")
        place.check_nobody_left()


def test_ctrl_c_during_the_final_evaluation_ends_the_program(place):
    train = place.train(config="cartpole.yaml", sets=["stop.wall_seconds=2", "stop.at_target_score=false",
                                                      "evaluation.final_episodes=1000000", "actors.count=1",
                                                      "replay.shards=1"])
    until(lambda: train.run.status().get("state") == "ended" and len(place.living()) == 1, 30, "the final evaluation")
    time.sleep(0.3)
    train.signal_group(signal.SIGINT)
    code = train.wait(3)
    check(code in (130, -signal.SIGINT), f"exit code {code}")
    check(train.run.summary()["stop_cause"] == "wall_seconds", "the summary of the training is there")
