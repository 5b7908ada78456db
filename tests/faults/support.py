"""What the fault tests share: runs of the built program in a place of their own, and the processes they leave.

Every process that a test starts inherits an environment variable that names the test's place, so that whatever is
left of it is found in /proc, whoever its parent is by then.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

MARK = "QANAT_FAULTS_PLACE"
CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"

# Runs that end when the test says so: no target score, short evaluations, little memory. The rate is bounded by the
# learner, and so is what the machine's other tests feel of it.
ENDLESS = ["stop.at_target_score=false", "stop.wall_seconds=120", "evaluation.episodes=10", "evaluation.final_episodes=10",
           "evaluation.every_seconds=0.5", "replay.capacity_steps=20000", "control.metrics_every_seconds=0.25"]


class Failed(Exception):
    """A test's expectation that did not hold."""


def check(condition, *what):
    if not condition:
        raise Failed(" ".join(str(part) for part in what))


def check_in(part, whole, what):
    check(part in whole, f"{what}: wanted {part!r} in:\n{whole}")


def until(condition, seconds, what):
    """Waits until condition() is true, and returns what it returned."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds} s: {what}")
        time.sleep(0.02)


def process_of(pid):
    """Environment and command line of a process, or None when it is gone, a zombie or not ours to see."""
    try:
        environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return None
    if state in "ZX" or not command:
        return None
    return environment, [part.decode(errors="replace") for part in command]


def listening_ports(pid):
    """TCP ports on which a process listens. Throws OSError when it is gone."""
    inodes = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        try:
            inodes.update(re.findall(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{descriptor}")))
        except OSError:
            pass
    lines = [line.split() for line in open(f"/proc/{pid}/net/tcp").readlines()[1:]]
    return [int(line[1].split(":")[1], 16) for line in lines if line[3] == "0A" and line[9] in inodes]


class Place:
    """A directory for one test, and every process started from it."""

    def __init__(self, program, name):
        self.program = program
        self.path = pathlib.Path(tempfile.mkdtemp(prefix=f"qanat-faults-{name}-"))
        self.runs = self.path / "runs"
        self.count = 0

    def environment(self, **more):
        return {**os.environ, MARK: str(self.path), **more}

    def living(self):
        """pid -> command line of the processes that this place's tests have started and that still live."""
        mark = f"{MARK}={self.path}".encode()
        found = {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == os.getpid():
                continue
            process = process_of(int(entry))
            if process and mark in process[0].split(b"\0"):
                found[int(entry)] = process[1]
        return found

    def check_nobody_left(self, seconds=0.5):
        deadline = time.monotonic() + seconds
        while self.living() and time.monotonic() < deadline:
            time.sleep(0.02)
        left = self.living()
        check(not left, f"processes are left behind after {seconds} s: {left}")

    def end(self, keep):
        for pid in self.living():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if not keep:
            shutil.rmtree(self.path, ignore_errors=True)

    def start(self, *arguments, cwd=None, **environment):
        """Starts the program in a session of its own, as a terminal would."""
        self.count += 1
        return Started(self, [str(argument) for argument in arguments], self.path / f"call-{self.count}", cwd, environment)

    def call(self, *arguments, seconds=20, **more):
        """Runs the program to its end."""
        started = self.start(*arguments, **more)
        started.wait(seconds)
        return started

    def train(self, *arguments, config="catch.yaml", name="run", sets=(), runs=None, **more):
        started = self.start("train", CONFIGS / config if not os.path.isabs(str(config)) else config, "--runs-dir",
                             runs or self.runs, "--name", name, *settings(sets), *arguments, **more)
        started.run = Run((runs or self.runs) / name)
        return started

    def role(self, role, index=None):
        """The pid of the living process with that role (and index), or None."""
        for pid, command in self.living().items():
            if len(command) < 2 or command[1] != role:
                continue
            if index is None or "--index" not in command or command[command.index("--index") + 1] == str(index):
                return pid
        return None


def settings(assignments):
    out = []
    for assignment in assignments:
        out += ["--set", assignment]
    return out


class Started:
    """A process of the program with its outputs in files."""

    def __init__(self, place, arguments, stem, cwd, environment):
        self.place = place
        self.arguments = arguments
        self.out_file = stem.with_suffix(".out")
        self.err_file = stem.with_suffix(".err")
        self.run = None
        with open(self.out_file, "wb") as out, open(self.err_file, "wb") as err:
            self.process = subprocess.Popen([place.program, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                            cwd=cwd or place.path, env=place.environment(**environment),
                                            start_new_session=True)

    @property
    def pid(self):
        return self.process.pid

    @property
    def out(self):
        return self.out_file.read_text(errors="replace")

    @property
    def err(self):
        return self.err_file.read_text(errors="replace")

    def ended(self):
        return self.process.poll() is not None

    def wait(self, seconds):
        """The exit code. A process that takes longer has failed the test."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"still running after {seconds} s: {' '.join(self.arguments)}\n{self.err}") from None

    def expect(self, code, seconds):
        seen = self.wait(seconds)
        check(seen == code, f"exit code {seen}, wanted {code}, of {' '.join(self.arguments)}\n{self.out}{self.err}"
              f"{self.run.last_words() if self.run else ''}")
        return self

    def signal_group(self, number):
        """What a terminal does at Ctrl-C: the whole group gets it."""
        os.killpg(self.process.pid, number)

    def until_training(self, updates=50):
        """Waits until the learner has done some updates."""
        def training():
            check(not self.ended(), f"ended with {self.process.returncode} before it trained:\n{self.err}"
                  f"{self.run.last_words()}")
            return self.run.status().get("updates", 0) >= updates
        until(training, 30, f"{updates} updates")


class Run:
    """What a run has written."""

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def json(self, name):
        return json.loads((self.path / name).read_text())

    def status(self):
        try:
            return self.json("status.json")
        except FileNotFoundError:
            return {}

    def summary(self):
        return self.json("summary.json")

    def metrics(self):
        """Complete lines of metrics.jsonl."""
        try:
            text = (self.path / "metrics.jsonl").read_text()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text[:text.rfind("\n") + 1].splitlines()]

    def log(self, name):
        try:
            return (self.path / "logs" / f"{name}.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def checkpoints(self):
        """Complete ones, first to last."""
        return sorted(path.parent for path in self.path.glob("checkpoints/step-*/manifest.json"))

    def until_checkpoint(self, seconds=30):
        return until(self.checkpoints, seconds, "a checkpoint")[-1]

    def last_words(self):
        out = ""
        for file in sorted((self.path / "logs").glob("*")):
            lines = file.read_text(errors="replace").splitlines()[-4:]
            if lines:
                out += f"--- {file.name}\n" + "\n".join(lines) + "\n"
        return out
