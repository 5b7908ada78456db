"""SIGSTOP of every kind of process for five seconds: the run survives with all its members."""

import os
import signal
import time

from support import ENDLESS, check, check_in, until

PAUSE_SECONDS = 5


def test_every_role_may_pause_for_five_seconds(place):
    train = place.train(sets=[*ENDLESS])
    train.until_training()
    for role in ("head", "learner", "replay", "actor", "evaluate"):
        pid = place.role(role, 0)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(PAUSE_SECONDS)
        os.kill(pid, signal.SIGCONT)
        before = train.run.status()
        until(lambda: train.run.status()["env_steps"] > before["env_steps"]
              and train.run.status()["updates"] > before["updates"], 5, f"progress after the pause of {role}")
    os.kill(train.pid, signal.SIGTERM)
    train.expect(85, 20)
    summary = train.run.summary()
    check(summary["restarts"] == 0, "restarts", summary["restarts"])
    check(all(p["starts"] == 1 for p in summary["processes"]), "everybody joined once:", summary["processes"])
    check("is lost" not in train.run.log("head-0"), "nobody was lost:\n" + train.run.log("head-0"))
    check(summary["metrics"].get("refused_messages", 0) == 0, "no message was refused")
    check_in("terminated", summary["stop_cause"], "stop_cause")
