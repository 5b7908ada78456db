"""300 kills, freezes and taken indices on one run: it ends well, nothing is lost, left behind or half saved.

usage: drill_kills.py PROGRAM [--seed N]
"""

import os
import signal
import sys
import time

from drill import STARTS, Drill, Failed, arguments, check_in, until

EVENTS = 300
SETS = ["stop.at_target_score=false", "stop.wall_seconds=100000", "evaluation.episodes=5", "evaluation.every_seconds=2",
        "replay.capacity_steps=20000", "control.metrics_every_seconds=0.25", "control.max_restarts=1000",
        "control.lost_after_seconds=6", "control.give_up_seconds=20", "checkpoint.every_seconds=3"]
# How often what happens, to whom. Those of the last line end the start, and the run goes on by --resume.
MAY_BE_KILLED = ["actor 0", "actor 1", "replay 0", "replay 1", "evaluate 0"]
MAY_FREEZE = [*MAY_BE_KILLED, "learner 0", "head", "train"]
ENDS_A_START = ["learner 0", "head", "train"]
HAPPENS = ["kill"] * 55 + ["freeze"] * 25 + ["take"] * 12 + ["end"] * 6 + ["long freeze"] * 2


def pid_of(drill, who):
    role, _, index = who.partition(" ")
    return drill.train.pid if role == "train" else drill.place.role(role, index or None)


def send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def take(drill, random):
    """Somebody starts a second process of a role and index that a living one has."""
    role, index = random.choice(MAY_BE_KILLED + ["learner 0"]).split()
    if not drill.address():
        return "nobody: there is no address"
    newcomer = drill.place.start(role, "--connect", drill.address(), "--index", index)
    # A holder that was killed a moment ago is honestly replaced: then the newcomer is the run's, until it is killed too.
    deadline = time.monotonic() + 20
    while not newcomer.ended() and "joined as" not in newcomer.err and time.monotonic() < deadline:
        time.sleep(0.05)
    if not newcomer.ended():
        newcomer.process.kill()
        newcomer.wait(10)
        return f"{role} {index}, which was let in"
    if newcomer.process.returncode != 2:
        drill.problem(f"a second {role} {index} ended with {newcomer.process.returncode}: {newcomer.err}")
    return f"{role} {index}, which was refused: {newcomer.err.strip().splitlines()[-1][-120:]}"


def freeze(drill, random, seconds):
    who = random.choice(MAY_FREEZE if seconds < 5 else MAY_BE_KILLED)
    pid = pid_of(drill, who)
    if not pid:
        return who + ", who was not there"
    send(pid, signal.SIGSTOP)
    time.sleep(seconds)
    send(pid, signal.SIGCONT)
    return f"{who} for {seconds:.1f} s"


def kill(drill, random):
    who = random.choice(MAY_BE_KILLED)
    pid = pid_of(drill, who)
    if pid:
        send(pid, signal.SIGKILL)
    return who if pid else who + ", who was not there"


def end(drill, random):
    """The start ends: by a kill that no run survives, or by a signal. The next goes on."""
    who = random.choice([*ENDS_A_START, "SIGTERM", "SIGINT"])
    if who.startswith("SIG"):
        drill.train.signal_group(getattr(signal, who))
        code = drill.ended((85,) if who == "SIGTERM" else (130,))
        if not drill.complete():
            drill.problem(f"after {who} (exit code {code}) there is no checkpoint: {drill.last_word()}")
    else:
        send(pid_of(drill, who) or drill.train.pid, signal.SIGKILL)
        drill.ended((-signal.SIGKILL,) if who == "train" else (1, 85))
    drill.start()
    if not drill.until_training():
        raise Failed(f"the start after {who} ended: {drill.last_word()}\n{drill.run.last_words()}")
    return who


def main():
    program, random = arguments(__doc__)
    drill = Drill(program, "drill-kills", SETS)

    def story():
        drill.start()
        drill.until_training()
        until(drill.complete, 60, "a first checkpoint")
        happened = dict.fromkeys(HAPPENS, 0)
        checked = drill.updates()
        for event in range(1, EVENTS + 1):
            what = random.choice(HAPPENS)
            happened[what] += 1
            whom = {"kill": lambda: kill(drill, random), "take": lambda: take(drill, random),
                    "freeze": lambda: freeze(drill, random, random.uniform(0.1, 3)),
                    "long freeze": lambda: freeze(drill, random, random.uniform(8, 12)),
                    "end": lambda: end(drill, random)}[what]()
            drill.say(f"{event}: {what}: {whom}")
            time.sleep(random.uniform(0, 1))
            if drill.train.ended():
                drill.problem(f"event {event}, {what}, {whom}: the run ended with {drill.train.process.returncode}:",
                              drill.last_word())
                drill.check_nobody_left()
                drill.start()
                drill.until_training()
            if what == "end":
                checked = drill.updates()
            if event % 25 == 0:
                until(lambda: drill.updates() > checked or drill.train.ended(), STARTS, f"updates after {checked}")
                checked = drill.updates()
        drill.say("what happened:", happened)
        drill.train.signal_group(signal.SIGTERM)
        drill.ended((85,))
        check_in("--resume", drill.last_word(), "the last word")
        drill.finish()
    return drill.live(story)


if __name__ == "__main__":
    sys.exit(main())
