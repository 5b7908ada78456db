"""Twenty restarts with full disks, few descriptors, a slow fsync and a stranger who lies in every field.

usage: drill_restarts.py PROGRAM [--seed N]
"""
# builds: acceptance_stranger

import os
import pathlib
import re
import signal
import sys
import time

from drill import Drill, Failed, arguments, call, check, listening, until

STARTS = 20
SETS = ["stop.at_target_score=false", "stop.wall_seconds=100000", "evaluation.episodes=5", "evaluation.every_seconds=2",
        "replay.capacity_steps=20000", "control.metrics_every_seconds=0.25", "checkpoint.every_seconds=2"]
TROUBLES = ["full", "descriptors", "slow", "stranger"]


class Disk:
    """Full or slow when it is told to (preload.c)."""

    def __init__(self, drill):
        self.place = drill.place.path / "disk"
        self.place.mkdir()
        library = drill.place.path / "preload.so"
        source = pathlib.Path(__file__).with_name("preload.c")
        call("cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl")
        self.environment = {"LD_PRELOAD": str(library), "QANAT_DISK": str(self.place),
                            "QANAT_DISK_OF": str(drill.place.runs)}

    def tell(self, name, text):
        (self.place / name).write_text(text)

    def mend(self):
        for file in self.place.iterdir():
            file.unlink()


def enough_descriptors(drill, program):
    """The least limit that the program itself wants."""
    script = drill.place.path / "few"
    script.write_text(f"#!/bin/sh\nulimit -n 32\nexec {program} \"$@\"\n")
    script.chmod(0o755)
    drill.place.program = str(script)
    refused = drill.place.train(name="few").expect(2, 20)
    drill.place.program = program
    return int(re.search(r"raise it to (\d+)", refused.err).group(1))


def stranger(drill, random):
    tool = pathlib.Path(drill.program).parent / "tests" / "acceptance" / "acceptance_stranger"
    addresses = [address for pid, command in drill.place.living().items() if command[1:2] != ["train"]
                 for address in listening(pid)]
    check(addresses, "somebody listens")
    status = drill.run.status()
    return call(tool, random.randrange(1 << 31), status.get("epoch", drill.starts), drill.run.path, *addresses)


def live_through(drill, disk, random, troubles):
    """Some seconds of training under the troubles; says what was seen."""
    updates = drill.updates()
    if "slow" in troubles:
        disk.tell("slow", f"{random.uniform(1, 8):.1f}")
    time.sleep(random.uniform(1, 3))
    seen = stranger(drill, random) if "stranger" in troubles else ""
    if "full" in troubles:
        disk.tell("full", "")
        time.sleep(random.uniform(1, 8))
        if random.random() < 0.7:
            (disk.place / "full").unlink()
            seen += " the disk has room again"
            time.sleep(2)
    until(lambda: drill.updates() > updates or drill.train.ended() or (disk.place / "full").exists(), 60,
          f"updates after {updates} under {troubles}")
    return seen


def end(drill, disk, random, troubles):
    """One way or the other. A run that its disk has ended before has said so."""
    full = (disk.place / "full").exists()
    if drill.train.ended():
        if "full" not in troubles:
            drill.problem(f"the run ended by itself under {troubles}:", drill.last_word(), drill.run.last_words())
        elif "No space left" not in drill.last_word():
            drill.problem("the last word does not name the cause:", drill.last_word())
        return f"by itself, {drill.ended((1, 85))}"
    how = random.choice(["SIGTERM", "SIGINT", "SIGHUP", "kill train", "kill learner"])
    if how.startswith("SIG"):
        before = drill.complete()
        drill.train.signal_group(getattr(signal, how))
        code = drill.ended((1, 85, 130) if full else (130,) if how == "SIGINT" else (85,), 180)
        if code in (85, 130) and not full and drill.complete() == before:
            drill.problem(f"{how} under {troubles}: exit code {code}, but nothing was saved:", drill.last_word())
    elif how == "kill train":
        drill.train.process.kill()
        drill.ended((-signal.SIGKILL,))
    else:
        os.kill(drill.place.role("learner") or drill.train.pid, signal.SIGKILL)
        drill.ended((1, 85, -signal.SIGKILL), 180)
    return how


def main():
    program, random = arguments(__doc__)
    drill = Drill(program, "drill-restarts", SETS)
    drill.program = program
    disk = Disk(drill)
    few = enough_descriptors(drill, program)
    deck = TROUBLES * (STARTS // len(TROUBLES))
    random.shuffle(deck)

    def story():
        for number, trouble in enumerate(deck, 1):
            troubles = {trouble} | ({random.choice(TROUBLES)} if random.random() < 0.3 else set())
            limit = few + random.randrange(20) if "descriptors" in troubles else 20000
            drill.patience = 60 if "slow" in troubles else 20
            script = drill.place.path / "limited"
            script.write_text(f"#!/bin/sh\nulimit -n {limit}\nexec {program} \"$@\"\n")
            script.chmod(0o755)
            drill.place.program = str(script)
            drill.start(**disk.environment)
            if not drill.until_training():
                raise Failed(f"start {number} ended before it trained: {drill.train.err}\n{drill.run.last_words()}")
            seen = live_through(drill, disk, random, troubles)
            how = end(drill, disk, random, troubles)
            disk.mend()
            drill.check_no_trace_of_strangers()
            drill.say(f"{number}: {', '.join(sorted(troubles))}; {seen}; ended: {how}; {len(drill.complete())} checkpoints;",
                      drill.last_word()[-150:])
        drill.place.program = program
        drill.finish()
    return drill.live(story)


if __name__ == "__main__":
    sys.exit(main())
