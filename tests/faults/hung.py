"""Hung is as good as dead: what was silent for too long is killed and replaced, and a dead run's leftovers are ended."""

import os
import pathlib
import signal
import tempfile
import time

from kills import started, starts
from support import ENDLESS, check, check_in, until


def test_stopped_processes_are_named_killed_and_replaced(place):
    train = started(place, "control.lost_after_seconds=6")
    stopped = {role: place.role(role, 0) for role in ("actor", "replay", "evaluate")}
    for pid in stopped.values():
        os.kill(pid, signal.SIGSTOP)
    for role in stopped:
        until(lambda: starts(train.run.status(), role) == 2, 20, f"a second start of {role}-0")
    before = train.run.status()
    until(lambda: all(train.run.status()[key] > before[key] for key in ("env_steps", "updates")), 15, "the run goes on")
    for role, pid in stopped.items():
        check_in(f"{role}-0, pid {pid}, was silent for more than 6 s (control.lost_after_seconds) and was killed",
                 train.run.log("train"), "train.log")

    learner = place.role("learner")
    train.run.until_checkpoint()
    os.kill(learner, signal.SIGSTOP)
    train.expect(1, 25)
    for words in ("learner-0 was silent for more than 6 s", "--resume"):
        check_in(words, train.err, "the last word")
    check_in("learner-0 was silent", train.run.summary()["stop_cause"], "stop_cause")
    check(train.run.summary()["restarts"] == 3, "restarts", train.run.summary()["restarts"])
    place.check_nobody_left()
    wall = train.run.status()["wall_seconds"]
    place.train("--resume", sets=[f"stop.wall_seconds={wall + 1}"]).expect(0, 30)


def test_a_stopped_head_ends_the_run_with_the_cause(place):
    train = started(place, "control.lost_after_seconds=6")
    os.kill(place.role("head"), signal.SIGSTOP)
    train.expect(1, 25)
    for words in ("head-0 was silent for more than 6 s", "--resume"):
        check_in(words, train.err, "the last word")
    place.check_nobody_left()


def test_resuming_ends_what_a_dead_run_has_left(place):
    train = started(place)
    train.run.until_checkpoint()
    refused = place.train("--resume").expect(2, 10)
    check_in(f"still goes on: train, pid {train.pid} on {os.uname().nodename} since 20", refused.err, "the refusal")
    learner = place.role("learner")
    os.kill(learner, signal.SIGSTOP)
    os.kill(train.pid, signal.SIGKILL)
    train.wait(5)
    wall = train.run.status()["wall_seconds"]
    begin = time.monotonic()
    again = place.train("--resume", sets=[f"stop.wall_seconds={wall + 1}"]).expect(0, 60)
    check_in(f"of the run before (train, pid {train.pid} on {os.uname().nodename}", again.err, "what it says")
    check_in(f"killed learner-0 (pid {learner}), a leftover of the run before", again.err, "what it says")
    check(again.err.count("a leftover of the run before") == 1, "the others had time to end by themselves:", again.err)
    check(time.monotonic() - begin < 40, "it took", time.monotonic() - begin)
    check(not place.living(), "nobody is left")


def test_an_end_does_not_wait_for_an_actor_and_an_evaluator_that_were_just_killed(place):
    train = started(place)
    killed = [place.role("actor", 0), place.role("evaluate")]
    for pid in killed:
        os.kill(pid, signal.SIGSTOP)  # so that they have not left when they die
    begin = time.monotonic()
    os.kill(train.pid, signal.SIGTERM)
    until(lambda: train.run.status()["state"] == "draining", 5, "the run's end has begun")
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    train.expect(85, 20)
    check(time.monotonic() - begin < 6, f"ended after {time.monotonic() - begin:.1f} s")


def test_socket_directories_of_dead_runs_are_removed_by_the_next_start(place):
    with tempfile.TemporaryDirectory(prefix="qt-") as tmp:  # a socket's name must be short
        check_socket_directories(place, pathlib.Path(tmp))


def check_socket_directories(place, tmp):
    others = tmp / "qanat-abcdef"  # nobody knows whose it is
    others.mkdir()
    train = place.train(TMPDIR=str(tmp), sets=ENDLESS)
    train.until_training()
    left = [path for path in tmp.iterdir() if path != others]
    check(len(left) == 1, "the run has one directory:", left)
    for pid in [train.pid, *place.living()]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    train.wait(5)
    place.check_nobody_left()
    check(left[0].exists(), "a killed run leaves its directory")
    # One that lives keeps its own, beside a start that removes the dead one's.
    alive = place.train(TMPDIR=str(tmp), name="alive", sets=ENDLESS)
    until(lambda: not left[0].exists(), 10, "the dead run's directory is gone")
    until(lambda: len(list(tmp.iterdir())) == 2, 10, "the living one's is there")
    place.train(TMPDIR=str(tmp), name="short", sets=["stop.updates=10", "evaluation.final_episodes=1"]).expect(0, 30)
    check(len(list(tmp.iterdir())) == 2 and others.exists(), "the living one's is kept:", list(tmp.iterdir()))
    os.kill(alive.pid, signal.SIGTERM)
    alive.wait(20)
    check(list(tmp.iterdir()) == [others], "all is gone, but for what is not known:", list(tmp.iterdir()))
