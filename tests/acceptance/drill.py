"""What the drills share: one run through many starts, and what must hold after each."""

import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "faults"))
import support  # noqa: E402
from support import Failed, check, check_in, until  # noqa: E402

# The machine may be busy: these tell a hang from a slow start.
STARTS, ENDS = 120, 120


def arguments(text):
    """The program and the seed: `PROGRAM [--seed N]`. The seed is printed, so that a failure can be repeated."""
    if len(sys.argv) not in (2, 4) or len(sys.argv) == 4 and sys.argv[2] != "--seed":
        sys.exit(f"{text}\nusage: {sys.argv[0]} PROGRAM [--seed N]")
    seed = int(sys.argv[3]) if len(sys.argv) == 4 else random.SystemRandom().randrange(1 << 31)
    print(f"seed {seed}", flush=True)
    return os.path.abspath(sys.argv[1]), random.Random(seed)


class Drill:
    """One run that is started, disturbed, ended and resumed."""

    def __init__(self, program, name, sets):
        self.place = support.Place(program, name)
        self.sets = sets
        self.train = None
        self.starts = 0
        self.problems = []
        self.temporary = self.place.path / "tmp"
        self.temporary.mkdir()
        self.begin = time.monotonic()
        self.patience = 20  # how long processes may outlive train: they look up between two files

    def say(self, *words):
        print(f"{time.monotonic() - self.begin:7.1f} s", *words, flush=True)

    def problem(self, *words):
        """What should not be, but does not keep the drill from going on."""
        self.problems.append(" ".join(str(word) for word in words))
        self.say("PROBLEM:", *words)

    @property
    def run(self):
        return support.Run(self.place.runs / "run")

    def complete(self):
        """Checkpoints whose manifest is there, each with all the files that it lists, as long as it says."""
        good = []
        for directory in sorted(self.run.path.glob("checkpoints/step-*")):
            manifest = directory / "manifest.json"
            if not manifest.exists():
                continue
            try:
                files = json.loads(manifest.read_text()).get("files", {})
                for name, file in files.items():
                    size = (directory / name).stat().st_size
                    check(size == file["bytes"], f"{directory.name}/{name} has {size} bytes, the manifest says", file["bytes"])
                check(files, f"{directory.name}: the manifest lists no files")
            except (Failed, OSError, ValueError, KeyError) as error:
                if directory.exists():  # the oldest goes while we look
                    self.problem("a checkpoint that looks complete is not:", error)
                continue
            good.append(directory)
        return good

    def start(self, sets=(), **environment):
        """Begins the run, or goes on with it."""
        again = ()
        if self.starts:
            again = ("--resume",)
            if not self.complete():
                again += ("--from-scratch",)
        self.starts += 1
        self.train = self.place.train(*again, sets=[*self.sets, *sets], TMPDIR=str(self.temporary), **environment)
        return self.train

    def until_training(self, updates=20):
        """Updates are done in this start. False when the run ended instead."""
        until(lambda: self.train.ended() or self.address(), STARTS, "the head listens")
        until(lambda: self.train.ended() or self.place.role("learner"), STARTS, "there is a learner")
        before = self.updates()
        until(lambda: self.train.ended() or self.updates() >= before + updates, STARTS, f"{updates} updates after {before}")
        return not self.train.ended()

    def updates(self):
        try:
            return self.run.status().get("updates", 0)
        except ValueError:
            return 0

    def address(self):
        found = re.search(r"--connect (\S+)", self.train.err)
        return found.group(1) if found else None

    def check_nobody_left(self, seconds=20):
        """Nobody lives on, and no directory of sockets is left."""
        deadline = time.monotonic() + seconds
        while self.place.living() and time.monotonic() < deadline:
            time.sleep(0.05)
        left = self.place.living()
        if left:
            self.problem(f"still alive {seconds} s after the end:", left)
            for pid in left:
                os.kill(pid, signal.SIGKILL)

    def ended(self, wanted, seconds=ENDS):
        """Waits for the end of train; its exit code must be one of `wanted`."""
        try:
            code = self.train.wait(seconds)
        except Failed as error:
            self.problem(error, self.run.last_words())
            self.train.process.kill()
            code = self.train.wait(10)
        if code not in wanted:
            self.problem(f"exit code {code}, wanted one of {wanted}; its last words: {self.last_word()}")
        self.check_nobody_left(self.patience)
        self.complete()
        return code

    def last_word(self):
        lines = self.train.err.strip().splitlines()
        return lines[-1] if lines else "(nothing)"

    def check_metrics(self):
        """Counters never fall and time never runs backwards, over all starts."""
        last = {}
        lines = self.run.metrics()
        for number, line in enumerate(lines):
            for name in ("time", "env_steps", "updates"):
                if line.get(name, 0) < last.get(name, 0):
                    self.problem(f"metrics.jsonl:{number + 1}: {name} falls from {last[name]} to {line.get(name)}")
                last[name] = line.get(name, 0)
        check(lines, "there are metrics")
        return last

    def check_no_trace_of_strangers(self):
        for path in self.run.path.glob("checkpoints/*stranger*"):
            self.problem("a stranger's message made", path)
            shutil.rmtree(path)

    def finish(self):
        """A last start ends as any run does, and everything that was left is in order."""
        train = self.start(sets=[f"stop.updates={self.updates() + 300}", "evaluation.final_episodes=20"])
        self.ended((0,), 2 * ENDS)
        if "evaluation: mean" not in train.out:
            self.problem("the last start did not evaluate:", train.err)
        if not self.complete():
            self.problem("there is no complete checkpoint at the end")
        for directory in self.run.path.glob("checkpoints/*"):
            if directory.name.startswith("damaged-"):
                self.problem("a checkpoint was found to be damaged:", directory.name)
        left = list(self.temporary.iterdir())
        if left:
            self.problem("directories of sockets are left:", [path.name for path in left])
        self.say("at the end:", self.check_metrics())

    def live(self, story):
        """Tells the story, and ends whatever it leaves. Returns the exit code."""
        try:
            story()
        except Failed as error:
            self.problem(error)
        except KeyboardInterrupt:
            self.problem("interrupted")
        self.place.end(keep=bool(self.problems))
        if self.problems:
            print(f"{len(self.problems)} problems, each named above; kept: {self.place.path}")
        return 1 if self.problems else 0


def call(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout.strip()


def listening(pid):
    """TCP addresses on which a process listens; none of one that is gone."""
    try:
        return [f"tcp://127.0.0.1:{port}" for port in support.listening_ports(pid)]
    except OSError:
        return []
