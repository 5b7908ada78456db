"""Runs that make no progress: they say what they wait for, and one that never did an update has failed."""

import os
import signal

from support import ENDLESS, check, check_in, until


def test_a_run_that_ends_without_an_update_has_failed_with_the_reason(place):
    train = place.train(sets=["replay.capacity_steps=40000000", "replay.min_size=20000000",
                              "stop.wall_seconds=2"]).expect(1, 30)
    check_in("the run ended (wall_seconds) without one update", train.err, "the last word")
    check_in("items are drawable, 20000000 wanted", train.err, "the last word")
    check_in("without one update", train.run.summary()["stop_cause"], "stop_cause")
    check("evaluation" not in train.run.summary(), "nothing is evaluated")


def test_a_run_without_updates_says_what_it_waits_for(place):
    train = place.train(sets=[*ENDLESS, "actors.count=1"])
    actor = until(lambda: place.role("actor", 0), 10, "the actor")
    os.kill(actor, signal.SIGSTOP)
    words = until(lambda: "no update for 10 s: " in train.err, 25, "the console says so") and train.err
    # Depending on how far it came.
    check(any(part in words for part in ("no actor has joined", "no env step has come", "draws wait: ", "actor-0: ")),
          "what it waits for:", words)
    until(lambda: "no update for 10 s: " in train.run.log("head-0"), 2, "the head's log says so")
    os.kill(actor, signal.SIGCONT)
    os.kill(train.pid, signal.SIGTERM)
    code = train.wait(20)
    # Where no actor came there is no network yet, so nothing that could be saved.
    check(code == (85 if train.run.checkpoints() else 1), "exit code", code, train.err)


def test_a_chunk_that_no_shard_takes_is_refused(place):
    train = place.train(sets=["env.id=catch-pixels", "network.preset=nature", "agent.stack=4", "replay.max_frame_megabytes=1",
                              "actors.chunk_steps=80"]).expect(2, 10)
    check_in("2 * actors.chunk_steps = 160 rows", train.err, "the refusal")
    check_in("replay.max_frame_megabytes = 1;", train.err, "the refusal")
    check(not train.run.path.exists(), "a run was begun")


def test_chunks_that_fit_by_themselves_fit_however_many_slots_send_them(place):
    # Eight slots of 60 rows of 7 KB: 3.4 MB, where a shard takes 1 MiB.
    train = place.train(sets=[*ENDLESS, "env.id=catch-pixels", "network.preset=nature", "agent.stack=4",
                              "replay.max_frame_megabytes=1", "actors.chunk_steps=60", "actors.slots=16",
                              "replay.shards=1", "replay.capacity_steps=20000", "replay.min_size=500", "stop.updates=3"])
    train.expect(0, 90)
    check(train.run.summary()["metrics"].get("refused_messages", 0) == 0, "no message was refused")
