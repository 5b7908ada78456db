"""SIGKILL and SIGSTOP of the Python processes that host environments."""

import os
import pathlib
import signal

from support import ENDLESS, check, check_in, until

PYTHON = os.environ.get("QANAT_TEST_PYTHON")


def parent_of(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def hosts_of(place, role):
    """pids of the Python hosts of a role's processes: between each and its role is a keeper (`env keep`)."""
    living = place.living()
    roles = {pid for pid, command in living.items() if role in command}
    hosts = [pid for pid, command in living.items() if "keep" not in command and any("qanat_env_host" in part for part in command)]
    found = []
    for pid in hosts:
        try:
            if parent_of(parent_of(pid)) in roles:
                found.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has ended meanwhile
    return sorted(found)


CONFIG = """
name: hosted
env:
  gymnasium: CartPole-v1
  python: {python}
  step_timeout_seconds: 2
network:
  preset: mlp
  hidden: [32]
replay:
  min_size: 500
actors:
  count: 1
  slots: 8
checkpoint:
  every_seconds: 1
"""


def started(place, *sets):
    config = place.path / "hosted.yaml"
    config.write_text(CONFIG.format(python=PYTHON))
    train = place.train(config=config, sets=[*ENDLESS, *sets])
    train.until_training()
    return train


def test_an_environment_that_crashes_again_and_again_ends_the_run_with_the_first_cause(place):
    if not PYTHON:
        print("skipped: QANAT_TEST_PYTHON names no Python with gymnasium")
        return
    config = place.path / "crashing.yaml"
    text = CONFIG.format(python=PYTHON).replace("CartPole-v1", "scripted:Script-v0")
    config.write_text(text.replace("env:\n", """env:
  kwargs: '{"at": [30, 0], "what": "crash"}'
"""))
    modules = pathlib.Path(__file__).resolve().parents[1] / "envs/host"
    train = place.train(config=config, sets=[*ENDLESS, "evaluation.every_seconds=1000", "stop.wall_seconds=600"], PYTHONPATH=str(modules))
    train.expect(1, 150)
    for words in ("-0 ended: exit code 2", "failed 5 times within 10 minutes; the first time: slot 0",
                  "it ended with exit code 3"):
        check_in(words, train.err, "the last word")
    check_in("failed 5 times", train.run.summary()["stop_cause"], "stop_cause")
    told = [train.run.log(role).count("its process is started again") for role in ("actor-0", "evaluate-0")]
    check(max(told) >= 4, "every fault is in the log")
    check(train.run.summary()["restarts"] == 0, "nobody was restarted")
    seen = train.run.summary()["env_restarts"]
    check(seen == sum(told), f"the summary has the environments' restarts: saw {seen}, wanted {told} as in the logs")


def test_an_environment_that_fails_at_its_first_steps_is_refused_before_anything_starts(place):
    if not PYTHON:
        print("skipped: QANAT_TEST_PYTHON names no Python with gymnasium")
        return
    config = place.path / "failing.yaml"
    modules = pathlib.Path(__file__).resolve().parents[1] / "envs/host"
    for what, words in (("raise", "scripted failure at (0, 2)"), ("crash", "it ended with exit code 3"),
                        ("nan_reward", "reward f32 is nan"), ("flag", "NoneType")):
        text = CONFIG.format(python=PYTHON).replace("CartPole-v1", "scripted:Script-v0")
        config.write_text(text.replace("env:\n", f"""env:
  kwargs: '{{"at": [0, 2], "what": "{what}"}}'
"""))
        # A Python and one environment are made; then it takes milliseconds. With restarts it took ten seconds.
        train = place.train(config=config, PYTHONPATH=str(modules)).expect(2, 8)
        check_in(words, train.err, "the refusal")
        check_in("fails at once", train.err, "the refusal")
        check(not train.run.path.exists(), "a run was begun")


def goes_on(train):
    before = train.run.status()
    until(lambda: all(train.run.status()[key] > before[key] for key in ("env_steps", "updates")), 20,
          "env steps and updates go on")


def check_goes_on(place, number, what):
    """Every host of the actor gets the signal: others take their places, nobody else is restarted, and it is told."""
    if not PYTHON:
        print("skipped: QANAT_TEST_PYTHON names no Python with gymnasium")
        return
    train = started(place)
    before = until(lambda: len(hosts_of(place, "actor")) == 2 and hosts_of(place, "actor"), 10, "a host a group")
    for pid in before:
        os.kill(pid, number)
    until(lambda: "its process is started again" in train.run.log("actor-0"), 30, "the log says that a host was replaced")
    until(lambda: len(hosts_of(place, "actor")) == 2 and not set(hosts_of(place, "actor")) & set(before), 30,
          "two other hosts")
    goes_on(train)
    until(lambda: train.run.metrics() and train.run.metrics()[-1].get("env_restarts") == 2, 10, "env_restarts is 2")
    check_in(what, train.run.log("actor-0"), "actor's log")
    check_in("environment CartPole-v1, all 4 slots (first seed", train.run.log("actor-0"), "actor's log")
    os.kill(train.pid, signal.SIGTERM)
    train.expect(85, 20)
    check(train.run.summary()["restarts"] == 0, "no role was restarted")
    check(train.run.summary()["env_restarts"] == 2, "the summary has the environments' restarts")
    place.check_nobody_left(5)


def test_a_killed_python_host_is_replaced(place):
    check_goes_on(place, signal.SIGKILL, "it was killed by signal 9")


def test_a_stopped_python_host_is_replaced(place):
    check_goes_on(place, signal.SIGSTOP, "it was stopped")


def test_an_actor_that_waits_for_its_environment_is_not_lost(place):
    if not PYTHON:
        print("skipped: QANAT_TEST_PYTHON names no Python with gymnasium")
        return
    train = started(place, "env.step_timeout_seconds=14", "control.lost_after_seconds=6")
    before = until(lambda: len(hosts_of(place, "actor")) == 2 and hosts_of(place, "actor"), 10, "a host a group")
    os.kill(before[0], signal.SIGSTOP)
    until(lambda: "took longer than 14 s" in train.run.log("actor-0"), 40, "the wait's end")
    check("is lost" not in train.run.log("head-0"), "the head heard of the actor all the time")
    goes_on(train)
    os.kill(train.pid, signal.SIGTERM)
    train.expect(85, 20)


def test_python_hosts_die_with_their_actor_and_with_the_run(place):
    if not PYTHON:
        print("skipped: QANAT_TEST_PYTHON names no Python with gymnasium")
        return
    train = started(place)
    before = hosts_of(place, "actor")
    os.kill(place.role("actor", 0), signal.SIGKILL)
    until(lambda: not set(hosts_of(place, "actor")) & set(before) and not set(before) & set(place.living()), 5,
          "the killed actor's hosts are gone")
    until(lambda: len(hosts_of(place, "actor")) == 2, 20, "the next actor's hosts")
    goes_on(train)
    os.kill(train.pid, signal.SIGKILL)
    train.wait(5)
    place.check_nobody_left(15)
