"""Few descriptors, few processes, places that are not there: a sentence with the number wanted, or a run that goes on."""

import os
import re
import shutil
import signal
import socket
import subprocess

from support import CONFIGS, check, check_in, listening_ports, until


def limited(place, script, name="limited"):
    """The program behind a shell that sets limits first."""
    path = place.path / name
    path.write_text(f"#!/bin/sh\n{script}\nexec {place.program} \"$@\"\n")
    path.chmod(0o755)
    place.program = str(path)


def refused(place, *words, **more):
    train = place.train(sets=["stop.updates=100"], **more).expect(2, 10)
    for word in words:
        check_in(word, train.err, "the refusal")
    check(train.err.count("\n") == 1, "one sentence:", train.err)
    check(not place.runs.exists(), "a runs directory was made")
    return train


def test_few_descriptors_are_refused_with_the_number_that_does(place):
    program = place.program
    for few in (32, 48):
        limited(place, f"ulimit -n {few}", name=f"with-{few}")
        train = refused(place, f"hard {few}", "wanted", "learner", "replay.shards, actors.count")
        place.program = program
    enough = int(re.search(r"raise it to (\d+)", train.err).group(1))
    limited(place, f"ulimit -n {enough}")
    place.train(sets=["stop.updates=100"]).expect(0, 40)


def test_a_role_by_hand_without_descriptors_says_so(place):
    limited(place, "ulimit -n 20")
    for role in ("actor", "replay", "learner", "evaluate"):
        check_in("descriptors: saw", place.call(role, "--connect", "tcp://127.0.0.1:1").expect(2, 5).err, role)
    head = place.call("head", "--config", CONFIGS / "catch.yaml", "--run-dir", place.path / "mine").expect(2, 5)
    check_in("descriptors: saw", head.err, "the head")
    check(not (place.path / "mine").exists(), "the head made a run directory")


def test_few_processes_are_refused_with_the_number_wanted(place):
    # Nothing limits root, so it becomes somebody who has no other process.
    become = ""
    if os.geteuid() == 0:
        shutil.copy(place.program, place.path / "qanat")
        place.program = str(place.path / "qanat")
        shutil.copytree(CONFIGS, place.path / "configs")
        subprocess.run(["chown", "-R", "54321", place.path], check=True)
        become = "exec setpriv --reuid=54321 --clear-groups "
    script = place.path / "few"
    script.write_text(f"#!/bin/bash\nulimit -u 12\n{become or 'exec '}{place.program} \"$@\"\n")
    script.chmod(0o755)
    place.program = str(script)
    config = place.path / "configs" / "catch.yaml" if become else "catch.yaml"
    refused(place, "processes and threads: saw", "wanted 28 for 7 processes of 4 threads", "ulimit -u: 12", config=config)


def test_a_tmpdir_that_is_not_there_is_refused(place):
    refused(place, "TMPDIR is '/nowhere/at/all'", "No such file or directory", TMPDIR="/nowhere/at/all")


def test_a_runs_directory_that_cannot_be_made_is_refused(place):
    (place.path / "file").write_text("")
    train = place.train(sets=["stop.updates=100"], runs=place.path / "file" / "runs").expect(2, 10)
    check_in("--runs-dir", train.err, "the refusal")


def test_a_clone_of_somebody_else_says_where_to_build(place):
    clone = place.path / "clone"
    shutil.copytree(CONFIGS.parent / "scripts", clone / "scripts")
    (clone / "CMakeLists.txt").write_text("")
    place.path.chmod(0o755)
    clone.chmod(0o555)
    as_another = ["setpriv", "--reuid=54321", "--clear-groups"] if os.geteuid() == 0 else []

    def call(*arguments):
        environment = {**os.environ, "QANAT_SKIP_SETUP": "1", "QANAT_BUILD_DIR": str(clone / "build" / "release")}
        return subprocess.run([*as_another, *arguments], cwd="/", env=environment, capture_output=True, text=True)
    for arguments in (["scripts/build"], ["scripts/qanat", "--version"], ["scripts/train", "configs/catch.yaml"]):
        refused = call(clone / arguments[0], *arguments[1:])
        check(refused.returncode == 2, arguments, "exit code", refused.returncode, refused.stderr)
        check_in(f"may not write to {clone}", refused.stderr, "the refusal")
        check_in("QANAT_BUILD_DIR", refused.stderr, "the refusal")
    built = clone / "build" / "release"
    built.mkdir(parents=True)
    (built / "qanat").write_text("#!/bin/sh\necho built\n")
    (built / "qanat").chmod(0o755)
    there = call(clone / "scripts/qanat", "--version")
    check(there.returncode == 0 and there.stdout == "built\n", "what is built is run:", there.stderr)
    check_in("as it was built", there.stderr, "the note")


def test_idle_strangers_do_not_take_the_last_descriptors(place):
    # A hard limit of 300; soft ones of less are raised.
    limited(place, "ulimit -Sn 100; ulimit -Hn 300")
    train = place.train(sets=["stop.wall_seconds=60", "stop.at_target_score=false", "evaluation.final_episodes=10",
                              "control.metrics_every_seconds=0.25"])
    train.until_training()
    check_in("300 descriptors (ulimit -n) suffice for ", train.run.log("head-0"), "the head's log")
    strangers = []
    for role in ("head", "learner"):
        for port in listening_ports(place.role(role)):
            strangers += [socket.create_connection(("127.0.0.1", port)) for _ in range(320)]
    for role in ("head-0", "learner-0"):
        until(lambda: "connections: 300 descriptors" in train.run.log(role), 5, f"{role} says that it refuses some")
    updates = train.run.status()["updates"]
    until(lambda: train.run.status()["updates"] > updates + 100, 10, "training goes on")
    train.signal_group(signal.SIGTERM)
    train.expect(85, 20)
    check(train.run.summary()["restarts"] == 0, "nobody died")
    for stranger in strangers:
        stranger.close()
