"""A network that swallows all packets without a word between a run's two machines, and comes back."""

import contextlib
import os
import shutil
import subprocess
import time

from support import CONFIGS, Run, check, settings, until

HEALED_WITHIN = 5  # seconds from the network's return to progress on either side
ADDRESSES = ("10.207.0.1", "10.207.0.2")


class Machines:
    """Two network namespaces with a cable between them. Names: 0 and 1."""

    def __init__(self, place):
        self.place = place
        first = self.hold(["unshare", "-Urn"])
        inside = ["nsenter", "-t", str(first), "-U", "-n", "--preserve-credentials"]
        second = self.hold([*inside, "unshare", "-n"])
        self.inside = (inside, ["nsenter", "-t", str(second), "-U", "-n", "--preserve-credentials"])
        self.ip(0, "link", "add", "cable0", "type", "veth", "peer", "name", "cable1", "netns", str(second))
        for end in (0, 1):
            self.ip(end, "link", "set", "lo", "up")
            self.ip(end, "addr", "add", ADDRESSES[end] + "/24", "dev", f"cable{end}")
            self.ip(end, "link", "set", f"cable{end}", "up")
        self.hardware = [self.ip(end, "-o", "link", "show", f"cable{end}").split("link/ether ")[1].split()[0] for end in (0, 1)]
        self.connect()

    def hold(self, command):
        """A process that keeps a namespace; it ends with the test's place."""
        process = subprocess.Popen([*command, "sh", "-c", "echo there; exec sleep 600"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True, env=self.place.environment())
        if process.stdout.readline().strip() != "there":
            raise PermissionError(process.stderr.read())
        return process.pid

    def ip(self, machine, *arguments):
        done = subprocess.run([*self.inside[machine], "ip", *arguments], capture_output=True, text=True)
        check(done.returncode == 0, "ip", *arguments, "failed:", done.stderr)
        return done.stdout

    def send_to(self, hardware):
        for end in (0, 1):
            self.ip(end, "neigh", "replace", ADDRESSES[1 - end], "lladdr", hardware[1 - end], "dev", f"cable{end}", "nud", "permanent")

    def connect(self):
        self.send_to(self.hardware)

    def cut(self):
        """Packets go out as before, to nobody."""
        self.send_to(["02:00:00:00:00:01", "02:00:00:00:00:02"])

    @contextlib.contextmanager
    def on(self, machine):
        """What the place starts meanwhile runs there."""
        program = self.place.program
        wrapper = self.place.path / f"on-{machine}"
        if not wrapper.exists():  # once: a process that begins may still be reading it
            wrapper.write_text(f"#!/bin/sh\nexec {' '.join(self.inside[machine])} {program} \"$@\"\n")
            wrapper.chmod(0o755)
        self.place.program = str(wrapper)
        try:
            yield
        finally:
            self.place.program = program


def machines(place):
    """None where this user may not make any."""
    if not all(shutil.which(tool) for tool in ("ip", "unshare", "nsenter")):
        return None
    try:
        return Machines(place)
    except PermissionError as error:
        print(f"not tried, as no network namespaces can be made here: {error}")
        return None


def heals(place, seconds, there):
    """Head and learner here, the roles `there` on the other machine, all else here; returns how long after the network's
    return both sides go on."""
    two = machines(place)
    if two is None:
        return None
    sets = ["control.bind_host=0.0.0.0", "stop.at_target_score=false", "stop.wall_seconds=300", "evaluation.final_episodes=10",
            "replay.capacity_steps=20000", "control.metrics_every_seconds=0.1", "checkpoint.every_seconds=1000"]
    config = place.path / "run.yaml"
    config.write_text(place.call("config", "show", CONFIGS / "catch.yaml", *settings(sets)).out)
    run = Run(place.runs / "cut")
    with two.on(0):
        place.start("head", "--config", config, "--run-dir", run.path)
        until((run.path / "head.address").exists, 20, "the head's address")
        port = next(line for line in (run.path / "head.address").read_text().split() if line.startswith("tcp:")).rsplit(":", 1)[1]
        address = f"tcp://{ADDRESSES[0]}:{port}"
    for role in ("learner", "replay", "replay", "actor", "actor"):
        with two.on(1 if role in there else 0):
            place.start(role, "--connect", address)

    def counts():
        # The status is written once a second; the metrics are ten times as new.
        lines = run.metrics()
        return (lines[-1]["env_steps"], lines[-1]["updates"]) if lines else (0, 0)

    def further(than):
        now = counts()
        return now[0] > than[0] and now[1] > than[1]

    until(lambda: counts()[1] > 200, 40, "200 updates")
    two.cut()
    time.sleep(seconds)
    before = counts()
    time.sleep(0.5)
    check(not further(before), "both sides go on although nothing gets through:", before, counts())
    before = counts()
    two.connect()
    begin = time.monotonic()
    # Ten times as long as it may take, so that a failure says how long it took.
    until(lambda: further(before), 10 * HEALED_WITHIN, "progress after the cut")
    healed = time.monotonic() - begin
    once = counts()
    until(lambda: further(once), HEALED_WITHIN, "more progress")
    return healed


def test_a_silent_cut_of_fourteen_seconds_heals_within_five(place):
    healed = heals(place, 14, there=("replay", "actor"))
    check(healed is None or healed < HEALED_WITHIN, "both sides went on after", healed, "s")
    for pid in place.living():
        os.kill(pid, 9)
