"""Saving where it is hard: shards that die meanwhile, disks that are full or gone, starts that are killed; and resuming."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time

from support import ENDLESS, Run, check, check_in, until

OFTEN = [*ENDLESS, "checkpoint.every_seconds=1", "evaluation.every_seconds=0"]


def incomplete(run):
    return [path.name for path in run.path.glob("checkpoints/step-*") if not (path / "manifest.json").exists()]


def last_line(train):
    return train.err.strip().splitlines()[-1]


def updates_of(checkpoint):
    return int(checkpoint.name[5:])


def manifest(checkpoint):
    return json.loads((checkpoint / "manifest.json").read_text())


def test_a_shard_that_dies_during_the_last_save_costs_its_part_alone(place):
    train = place.train(sets=[*ENDLESS, "checkpoint.every_seconds=0"])
    train.until_training(500)
    shard = place.role("replay", 0)
    os.kill(shard, signal.SIGSTOP)  # so that it is still saving when it dies
    os.kill(train.pid, signal.SIGTERM)
    until(lambda: list(train.run.path.glob("checkpoints/step-*/shard-1.bin")), 20, "the last save")
    os.kill(shard, signal.SIGKILL)
    train.expect(85, 20)
    saved = train.run.checkpoints()
    check(len(saved) == 1 and not incomplete(train.run), "the run is saved:", saved)
    missing = manifest(saved[-1])["missing"]
    check(len(missing) == 1 and "shard-0" in missing[0], "what is missing:", missing)
    check_in("shard-0", train.run.log("learner-0"), "the learner's log")
    check_in("go on with --resume", last_line(train), "the last word")
    again = place.train("--resume", sets=[f"stop.updates={updates_of(saved[-1]) + 50}"]).expect(0, 40)
    check_in("without a part of the replay", again.err, "the warning")
    check_in("restored ", again.run.log("replay-1"), "the log of the shard that was saved")
    check_in("starts empty", again.run.log("replay-0"), "the log of the one that was not")


class Full:
    """A small disk of its own, filled to the last byte; for root alone."""

    def __init__(self, place):
        self.disk = place.path / "disk"
        self.disk.mkdir()
        self.runs = self.disk / "runs"
        self.mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", self.disk], capture_output=True)

    def break_it(self, train):
        with open(self.disk / "ballast", "wb", buffering=0) as ballast:
            try:
                while ballast.write(bytes(1 << 16)):
                    pass
            except OSError:
                pass

    def mend_it(self, train):
        (self.disk / "ballast").unlink()

    def end(self):
        if self.mounted.returncode == 0:
            subprocess.run(["umount", "-l", self.disk], check=True)


class Limited:
    """Files of the run's processes may grow no further, as under a quota."""

    def __init__(self, place):
        self.place = place
        self.runs = place.runs
        self.limit = resource.RLIM_INFINITY

    def set(self, limit):
        for role in ("head", "learner"):
            pid = self.place.role(role)
            if pid:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def break_it(self, train):
        self.set(64)

    def mend_it(self, train):
        self.set(resource.RLIM_INFINITY)

    def end(self):
        pass


class Gone:
    """The run's directory is moved away."""

    def __init__(self, place):
        self.runs = place.runs
        self.away = place.path / "away"

    def break_it(self, train):
        train.run.path.rename(self.away)

    def mend_it(self, train):
        check(not train.run.path.exists(), "nobody made the run's directory anew")
        self.away.rename(train.run.path)

    def end(self):
        pass


def fails_and_heals(place, trouble):
    train = place.train(runs=trouble.runs, sets=OFTEN)
    train.until_training()
    before = train.run.until_checkpoint()
    trouble.break_it(train)
    until(lambda: "a checkpoint could not be saved: " in train.err, 30, "it is said that saving fails")
    time.sleep(1)  # four reports of the head's
    check(not train.ended(), "the run goes on")
    trouble.mend_it(train)
    at = train.run.status()["updates"]
    until(lambda: "checkpoints can be saved again" in train.err, 40, "it is said that saving works again")
    until(lambda: train.run.status().get("updates", 0) > at, 10, "updates go on")
    newer = train.run.checkpoints()
    check(newer and updates_of(newer[-1]) > updates_of(before), "another checkpoint came:", newer)
    status = until(lambda: train.run.status() if not train.run.status()["save_error"] else None, 5, "a status without error")
    check(status["metrics"]["failed_saves"] > 0, "failed saves are counted")
    check(train.run.metrics()[-1]["failed_writes"] > 0, "failed records are counted")
    check(train.err.count("could not be saved") == 1, "it was said once:", train.err)

    trouble.break_it(train)
    done = updates_of(newer[-1])
    time.sleep(1.5)
    os.kill(train.pid, signal.SIGTERM)
    train.wait(40)
    trouble.mend_it(train)
    kept = train.run.checkpoints()
    check(kept and updates_of(kept[-1]) >= done and not incomplete(train.run), "the ones before are kept:", kept, incomplete(train.run))
    return train, kept[-1]


def check_lost_the_end(train, kept):
    check(train.process.returncode == 85, "exit code", train.process.returncode, train.err, train.run.last_words())
    check_in("the last checkpoint could not be saved: ", last_line(train), "the last word")
    check_in(f"updates are lost: --resume goes on from update {updates_of(kept)} ", last_line(train), "the last word")


def goes_on(place, trouble, kept):
    again = place.train("--resume", runs=trouble.runs, sets=[f"stop.updates={updates_of(kept) + 50}"]).expect(0, 40)
    check_in("resumed from " + str(kept), again.run.log("learner-0"), "the learner's log")


def test_a_full_disk_costs_neither_the_run_nor_what_was_saved(place):
    trouble = Full(place)
    if trouble.mounted.returncode != 0:
        print(f"skipped: a small disk cannot be mounted here: {trouble.mounted.stderr.decode().strip()}")
        return
    try:
        train, kept = fails_and_heals(place, trouble)
        # There may be room for the last save: the older checkpoint went, and the replay may be left out.
        if "go on with --resume (" not in last_line(train):
            check_lost_the_end(train, kept)
        check(train.process.returncode == 85, "exit code", train.process.returncode, train.err)
        goes_on(place, trouble, kept)
    finally:
        place.check_nobody_left(5)
        trouble.end()


def test_a_limit_on_files_costs_neither_the_run_nor_what_was_saved(place):
    trouble = Limited(place)
    train, kept = fails_and_heals(place, trouble)
    check_lost_the_end(train, kept)
    goes_on(place, trouble, kept)


def test_a_directory_that_is_gone_for_a_while_costs_neither_the_run_nor_what_was_saved(place):
    trouble = Gone(place)
    train, kept = fails_and_heals(place, trouble)
    check(train.process.returncode == 1, "exit code", train.process.returncode, train.err)  # there was nothing to resume
    check_in("there is no checkpoint, and all ", last_line(train), "the last word")
    goes_on(place, trouble, kept)


def test_a_run_that_can_save_nothing_ends_with_the_cause(place):
    train = place.train(sets=[*OFTEN, "checkpoint.give_up_seconds=2"])
    train.until_training()
    kept = train.run.until_checkpoint()
    Limited(place).break_it(train)
    train.expect(1, 40)
    for words in ("nothing could be saved for 2", "File too large", "--resume goes on from update "):
        check_in(words, last_line(train), "the last word")
    check_in("File too large", train.run.summary()["stop_cause"], "the summary")
    check(train.run.checkpoints()[-1] >= kept and not incomplete(train.run), "what was saved is kept")


def check_rising(lines):
    for key in ("time", "env_steps", "updates", "episodes"):
        values = [line[key] for line in lines]
        check(values == sorted(values), key, "falls:", values)


def test_metrics_go_on_where_the_checkpoint_was_after_a_kill(place):
    train = place.train(sets=OFTEN)
    train.until_training()
    train.run.until_checkpoint()
    time.sleep(1.5)
    os.kill(place.role("learner"), signal.SIGKILL)
    train.expect(1, 20)
    saved = updates_of(train.run.checkpoints()[-1])
    check_in("--resume goes on from update ", last_line(train), "the last word")
    before = train.run.metrics()
    again = place.train("--resume", sets=[f"stop.updates={saved + 500}"]).expect(0, 40)
    lines = again.run.metrics()
    check_rising(lines)
    kept = [line for line in lines if line in before]
    first = lines[len(kept)]
    check(first["updates"] == saved, "the first line after the resume has", first["updates"], "updates, wanted", saved)
    undone = [json.loads(line) for line in (again.run.path / "metrics.undone.jsonl").read_text().splitlines()]
    check(undone and kept + undone == before, "what was undone is kept elsewhere:", len(kept), len(undone), len(before))
    check(len(list(again.run.path.glob("events.out.tfevents.*"))) == 2, "event files")


def test_a_start_that_is_killed_leaves_a_whole_run_or_none(place):
    moments = random.Random(3)
    for attempt in range(12):
        train = place.train(name="run", sets=ENDLESS)
        time.sleep(moments.uniform(0, 0.25))
        train.signal_group(signal.SIGKILL)
        train.wait(5)
        until(lambda: not place.living(), 15, "its processes are gone")
        if train.run.path.exists():
            check((train.run.path / "config.yaml").exists(), "a run without a configuration")
            shutil.rmtree(train.run.path)
    place.train(sets=["stop.updates=20", "evaluation.final_episodes=2"]).expect(0, 30)
    check([path.name for path in place.runs.iterdir()] == ["run"], "nothing else is left:", list(place.runs.iterdir()))


def test_resuming_without_a_checkpoint_must_be_wanted(place):
    train = place.train(sets=["stop.updates=20", "evaluation.final_episodes=2"]).expect(0, 30)
    for checkpoint in train.run.path.glob("checkpoints/*"):
        shutil.rmtree(checkpoint)
    refused = place.train("--resume").expect(2, 10)
    for words in ("no checkpoint in " + str(train.run.path), "--from-scratch", "is lost"):
        check_in(words, refused.err, "the refusal")
    check((train.run.path / "epoch").read_text() == "1\n", "the run was not started")
    check_in("--from-scratch is for --resume", place.train("--from-scratch", name="new").expect(2, 10).err, "the refusal")
    again = place.train("--resume", "--from-scratch", sets=["stop.updates=30"]).expect(0, 30)
    check_in("begins again at update 0", again.err, "the warning")
    check_in("begins again at update 0", again.run.log("train"), "the log")
    check(again.run.summary()["updates"] == 30, "updates", again.run.summary()["updates"])
    check_rising(again.run.metrics())
    # With a checkpoint there, the flag changes nothing.
    last = place.train("--resume", "--from-scratch", sets=["stop.updates=40"]).expect(0, 30)
    check("begins again" not in last.err, "the warning:", last.err)
    check_in("resumed from ", last.run.log("learner-0"), "the learner's log")


def test_a_configuration_that_was_cut_short_is_refused_with_the_remedy(place):
    train = place.train(sets=["stop.updates=20", "evaluation.final_episodes=2"]).expect(0, 30)
    config = train.run.path / "config.yaml"
    whole = config.read_text()
    config.write_text(whole[:whole.index("\nlearner:") + 1])
    for refused in (place.train("--resume"), place.call("evaluate", train.run.path),
                    place.call("head", "--run-dir", train.run.path)):
        refused.expect(2, 10)
        for words in (str(config), "cut short", "config show"):
            check_in(words, refused.err, "the refusal")
    config.write_text(whole.split("\n", 1)[1])  # of an earlier version, or edited
    place.train("--resume", sets=["stop.updates=30"]).expect(0, 30)
