"""Help, version, and where things are written."""

import os
import pathlib
import re
import subprocess

from support import CONFIGS, ENDLESS, check, check_in, settings


def test_help_is_complete(place):
    top = place.call("--help").expect(0, 5).out
    for words in ("train", "head", "learner", "replay", "actor", "evaluate", "config", "env", "--version", "Exit codes"):
        check_in(words, top, "qanat --help")
    wanted = {
        "train": ["--name", "--runs-dir", "--seed", "--set", "--resume", "--from-scratch", "--init-from", "--lockstep", "config"],
        "head": ["--config", "--run-dir", "--bind", "--resume-from", "--epoch"],
        "learner": ["--connect", "--index", "--log-dir", "--init-from"],
        "replay": ["--connect", "--index", "--log-dir"],
        "actor": ["--connect", "--index", "--log-dir"],
        "evaluate": ["--connect", "--episodes", "--last", "run_dir"],
        "config": ["schema", "docs", "show"],
        "env": ["list"],
    }
    for command, flags in wanted.items():
        text = place.call(command, "--help").expect(0, 5).out
        for flag in flags:
            check_in(flag, text, f"qanat {command} --help")
        for line in text.splitlines():
            check(not re.fullmatch(r"\s+--?[a-z-]+\s*", line), f"qanat {command} --help has a flag without a word:", line)


def test_version_names_the_commit(place):
    text = place.call("--version").expect(0, 5).out
    check(re.fullmatch(r"qanat \d+\.\d+\.\d+ \(([0-9a-f]{7,40}(-dirty)?|unknown)\)\n", text), text)


def test_reference_schema_and_environments_are_printed(place):
    check_in("ratio_window_steps", place.call("config", "docs").expect(0, 5).out, "the reference")
    check_in('"additionalProperties"', place.call("config", "schema").expect(0, 5).out, "the schema")
    check_in("CartPole-v1", place.call("env", "list").expect(0, 5).out, "the environments")


def test_progress_is_shown_as_lines_when_standard_error_is_no_terminal(place):
    train = place.train(sets=[*ENDLESS, "stop.wall_seconds=7"]).expect(0, 40)
    lines = [line for line in train.err.splitlines() if " steps/s | " in line]
    check(len(lines) >= 2, "progress lines in 7 s:\n" + train.err)
    check("\r" not in train.err and "\x1b" not in train.err, "no terminal's control characters")
    for words in ("steps/s", "updates/s", "ratio", "lag", "return", "left"):
        check_in(words, lines[-1], "the progress line")


def test_the_progress_line_of_a_terminal_stays_one_line(place):
    main, side = os.openpty()
    train = subprocess.Popen([place.program, "train", CONFIGS / "catch.yaml", "--runs-dir", place.runs, *settings(ENDLESS),
                              "--set", "stop.wall_seconds=3"], stdout=subprocess.DEVNULL, stderr=side,
                             env=place.environment(), start_new_session=True)
    os.close(side)
    seen = b""
    try:
        while chunk := os.read(main, 65536):
            seen += chunk
    except OSError:  # the other side is closed
        pass
    os.close(main)
    check(train.wait(20) == 0, "exit code", train.returncode, seen)
    check(seen.count(b"\r\x1b[K") >= 3, "the line is rewritten in place:", seen)


def test_an_unwritable_runs_directory_is_refused(place):
    (place.path / "file").write_text("not a directory")
    for runs in (place.path / "file", place.path / "file" / "runs", "/proc/runs"):
        train = place.train(runs=pathlib.Path(runs))
        code = train.wait(10)
        check(code in (1, 2), "exit code", code)
        check_in(str(runs), train.err, "the refusal")
        place.check_nobody_left()


def test_it_runs_from_any_directory_and_with_relative_paths(place):
    elsewhere = place.path / "else where"
    elsewhere.mkdir()
    (elsewhere / "my.yaml").write_text((CONFIGS / "catch.yaml").read_text())
    first = place.start("train", "my.yaml", "--name", "one", "--set", "stop.updates=50", cwd=elsewhere).expect(0, 30)
    check_in("runs/one", first.out, "the path of the run")
    check((elsewhere / "runs/one/summary.json").exists(), "the run is where the user stood")
    # Going on from another directory works too: nothing in a run depends on where it was begun.
    (elsewhere / "runs").rename(place.path / "moved")
    place.start("train", elsewhere / "my.yaml", "--runs-dir", "../moved", "--name", "one", "--resume", "--set",
                "stop.updates=100", cwd=elsewhere).expect(0, 30)


def test_a_closed_standard_output_does_no_harm(place):
    read, write = os.pipe()
    os.close(read)
    train = subprocess.Popen([place.program, "train", CONFIGS / "catch.yaml", "--runs-dir", place.runs, "--set",
                              "stop.updates=50"], stdout=write, stderr=write, env=place.environment(), start_new_session=True)
    os.close(write)
    check(train.wait(30) == 0, "exit code", train.returncode)
    check((place.runs / "catch/summary.json").exists(), "the summary is there")
