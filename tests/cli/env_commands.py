"""`qanat env ...` as a user has it: exit codes and words.

usage: env_commands.py PROGRAM BROKEN COIN: the program, the plug-in with one environment a fault, and a sound one with
two environments.
"""

import json
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

PROGRAM, BROKEN, COIN = sys.argv[1:4]


def qanat(*arguments, cwd, code=0):
    done = subprocess.run([PROGRAM, *map(str, arguments)], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=120)
    assert done.returncode == code, f"{arguments}: exit code {done.returncode}, wanted {code}\n{done.stdout}"
    return done.stdout


def wanted(text, *parts):
    for part in parts:
        assert part in text, f"{part!r} is not in\n{text}"


def check_names_faults(folder):
    """A sound environment gives 0, a broken one 1; a crash and a hang are faults like others."""
    broken = lambda name, *more, code=1: qanat("env", "check", BROKEN, "--set", f"env.id={name}", "--steps", 200, *more,
                                               cwd=folder, code=code)
    wanted(broken("sound", code=0), "no fault found", "200 steps of 8 slots", "picture: 4 x 4")
    wanted(broken("range"), "FAULT range:", "1 kind of fault")
    wanted(broken("crash"), "FAULT crash:", "signal 6", "in step, step 10 of the batch")
    wanted(broken("hang", "--timeout", 0.2), "FAULT hang:", "in step, step 10 of the batch", "at most 0.2 s")
    wanted(broken("slow", "--timeout", 0.05), "FAULT timeout:", "step 10 of the batch")
    wanted(broken("destroy-null"), "FAULT crash:", "signal 11")
    wanted(broken("throws"), "FAULT exception:", "the dragon is loose")


def check_takes_ids_plugins_and_configurations(folder):
    wanted(qanat("env", "check", "catch", "--steps", 100, cwd=folder), "no fault found")
    (folder / "sub").mkdir()
    (folder / "sub" / "libcoin.so").symlink_to(COIN)
    (folder / "sub" / "coin.yaml").write_text("env:\n  plugin: libcoin.so\n  id: coin\n  options: sides=3\n")
    wanted(qanat("env", "check", "sub/coin.yaml", "--steps", 100, cwd=folder), "discrete, 3", "no fault found")
    wanted(qanat("env", "check", COIN, "--set", "env.id=coin", "--set", "env.options=sides=4", "--steps", 100,
                 cwd=folder), "discrete, 4")
    # One that is not trusted is loaded by a process of its own: its end is told as a fault of its step.
    wanted(qanat("env", "check", COIN, "--set", "env.id=coin", "--set", "env.isolate=true", "--steps", 100, cwd=folder),
           "discrete, 2", "no fault found")
    wanted(qanat("env", "check", BROKEN, "--set", "env.id=crash", "--set", "env.isolate=true", "--steps", 100,
                 cwd=folder, code=1), "FAULT crash:", "killed by signal 6", "1 kind of fault")
    wanted(qanat("env", "check", BROKEN, "--set", "env.id=no-shape", "--set", "env.isolate=true", cwd=folder, code=1),
           "FAULT create:", "its spec is broken: observation grid has rank 2")
    # One that ends the program that loads it does not make that look like a good end.
    (folder / "exits.yaml").write_text(f"env:\n  plugin: {BROKEN}\n  id: exits\n")
    wanted(qanat("train", "exits.yaml", cwd=folder, code=2), "an environment or a library called exit(0)")
    wanted(qanat("env", "check", COIN, cwd=folder, code=1), "FAULT create:", "holds 2 environments", "coin, six-sided")
    wanted(qanat("env", "check", "libnone.so", cwd=folder, code=1), "FAULT create:", "libnone.so", "no such file")
    wanted(qanat("env", "check", "cartpole", cwd=folder, code=1), "FAULT create:", "nearest: CartPole-v1")


def a_run_keeps_the_plugins_path(folder):
    """Trained from another directory than the configuration's; the run's own configuration names the file for all."""
    (folder / "config").mkdir()
    (folder / "config" / "libcoin.so").symlink_to(COIN)
    (folder / "config" / "coin.yaml").write_text(
        "name: coin\nenv:\n  plugin: ./libcoin.so\n  id: coin\nnetwork:\n  preset: mlp\n  hidden: [16]\n"
        "replay:\n  capacity_steps: 10000\n  min_size: 200\nactors:\n  count: 1\n  slots: 4\n"
        "stop:\n  updates: 200\nevaluation:\n  final_episodes: 10\n")
    (folder / "elsewhere").mkdir()
    qanat("train", "../config/coin.yaml", cwd=folder / "elsewhere")
    saved = (folder / "elsewhere" / "runs" / "coin" / "config.yaml").read_text()
    wanted(saved, f'plugin: "{folder / "config" / "libcoin.so"}"')
    wanted(qanat("evaluate", "elsewhere/runs/coin", cwd=folder), "over 10 episodes")
    # When both have moved, the way out is named, and works from anywhere.
    (folder / "elsewhere").rename(folder / "moved")
    (folder / "config" / "libcoin.so").rename(folder / "coin_of_today.so")
    wanted(qanat("evaluate", "moved/runs/coin", cwd=folder, code=2), "there is no such file", "--set: env.plugin=PATH")
    wanted(qanat("evaluate", "runs/coin", "--set", "env.plugin=../coin_of_today.so", cwd=folder / "moved"),
           "over 10 episodes")


def train_tries_a_plugin_first(folder):
    """What ends an actor at its first steps is refused before there is a run, a crash and a hang too."""
    def refused(name, *words, sets=()):
        train = qanat("train", folder / "any.yaml", "--set", f"env.plugin={BROKEN}", "--set", f"env.id={name}", *sets,
                      cwd=folder, code=2)
        wanted(train, "fails at once", *words)
        assert not (folder / "runs").exists(), "a run was begun"

    (folder / "any.yaml").write_text("network:\n  preset: mlp\n")
    refused("fails", "(step)", "the physics blew up")
    refused("crash", "(crash)", "killed by signal 6", "in step, step 10")
    refused("exits", "(crash)", "exit code")
    refused("hang", "(hang)", "in step, step 10", "wanted at most 0.1 s",
            sets=["--set", "env.step_timeout_seconds=0.1", "--set", "env.reset_timeout_seconds=0.1"])
    refused("crash", "killed by signal 6", sets=["--set", "env.isolate=true"])


def bench_gives_rates(folder):
    line = json.loads(qanat("env", "bench", "CartPole-v1", "--slots", 4, "--seconds", 0.2, "--json", cwd=folder))
    assert line["env"] == "CartPole-v1" and line["slots"] == 4
    for kind in ("bare", "vectorised"):
        assert line[f"{kind}_env_steps_per_second"] > 10_000
        assert line[f"{kind}_env_steps_per_cpu_second"] >= line[f"{kind}_env_steps_per_second"] * 0.9
    wanted(qanat("env", "bench", "MinAtar/breakout", "--seconds", 0.1, cwd=folder), "bare, by the C table", "VectorEnv")


def png_chunks(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at = 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at:at + 4])
        (crc,) = struct.unpack(">I", data[at + 8 + size:at + 12 + size])
        assert crc == zlib.crc32(data[at + 4:at + 8 + size]), "a chunk's checksum is wrong"
        yield data[at + 4:at + 8].decode(), data[at + 8:at + 8 + size]
        at += 12 + size


def pixels_of(chunks):
    """The first frame of an RGB picture whose rows are differences from the row above: [height][width][3]."""
    width, height = struct.unpack(">II", chunks["IHDR"][:8])
    raw, above, rows = zlib.decompress(chunks["IDAT"]), bytes(3 * width), []
    assert len(raw) == height * (3 * width + 1)
    for y in range(height):
        row = raw[y * (3 * width + 1):(y + 1) * (3 * width + 1)]
        assert row[0] == 2
        above = bytes((a + b) % 256 for a, b in zip(row[1:], above))
        rows.append([tuple(above[i:i + 3]) for i in range(0, 3 * width, 3)])
    return rows


def play_films_what_can_be_seen(folder):
    wanted(qanat("env", "play", "catch", "--episodes", 2, "--output", "a.png", cwd=folder), "render()", "episode 2",
           "9 steps")
    chunks = list(png_chunks(folder / "a.png"))
    (frames,) = struct.unpack(">I", dict(chunks)["acTL"][:4])
    assert frames == 18 == sum(kind == "fcTL" for kind, _ in chunks)
    # Catch begins with the ball in the top row and the paddle in the middle of the bottom row, and nothing else.
    pixels = pixels_of(dict(reversed(chunks)))
    cell = len(pixels) // 10
    board = [[pixels[cell * row + cell // 2][cell * column + cell // 2] for column in range(5)] for row in range(10)]
    background = board[5][0]
    assert [c != background for c in board[9]] == [False, False, True, False, False]
    assert sum(c != background for c in board[0]) == 1
    assert all(c == background for row in board[1:9] for c in row)
    qanat("env", "play", "catch", "--episodes", 2, "--output", "b.png", cwd=folder)
    assert (folder / "a.png").read_bytes() == (folder / "b.png").read_bytes(), "the same seed, another film"
    wanted(qanat("env", "play", "MinAtar/breakout", "--episodes", 50, "--max-frames", 20, "--output", "c.png",
                 cwd=folder), "20 frames", "cut after")
    wanted(qanat("env", "play", "catch-pixels", "--output", "d.png", cwd=folder), "episode 1")
    wanted(qanat("env", "play", "CartPole-v1", cwd=folder, code=2), "cannot be shown", "no render()")
    wanted(qanat("env", "play", "catch", "--policy", "nowhere", cwd=folder, code=2), "random or the directory of a run")


def new_writes_once(folder):
    made = qanat("env", "new", "--cpp", "my_env", cwd=folder)
    wanted(made, "my_env/my_env.cpp", "my_env/CMakeLists.txt", "my_env/my_env.yaml", "cmake -S my_env")
    source = (folder / "my_env" / "my_env.cpp").read_text()
    wanted(source, "class MyEnv", 'id = "my_env"')
    assert "@" not in source, "a key was not filled in"
    wanted(qanat("env", "new", "--cpp", "my_env", cwd=folder, code=2), "is there already and is not overwritten")
    wanted(qanat("env", "new", "--cpp", "other", "--dir", "my_env", cwd=folder, code=2), "CMakeLists.txt is there")
    assert not (folder / "my_env" / "other.cpp").exists(), "written in part"
    wanted(qanat("env", "new", "--python", "my_game", "--dir", "deep/er", cwd=folder), "deep/er/my_game.py")
    wanted(qanat("env", "new", "--python", "My", cwd=folder, code=2), "begin with a letter a to z")
    qanat("env", "new", cwd=folder, code=2)
    # The one command at its top builds it, and strictly.
    command = next(line.removeprefix("//   ") for line in source.splitlines() if "g++" in line)
    subprocess.run(command.replace("g++", "g++ -Wall -Wextra -Wpedantic -Werror").split(), cwd=folder / "my_env",
                   check=True)
    wanted(qanat("env", "check", "my_env/my_env.yaml", cwd=folder), "no fault found")


def main():
    for test in (check_names_faults, check_takes_ids_plugins_and_configurations, a_run_keeps_the_plugins_path,
                 train_tries_a_plugin_first, bench_gives_rates, play_films_what_can_be_seen, new_writes_once):
        with tempfile.TemporaryDirectory(prefix="qanat-env-") as folder:
            test(Path(os.path.realpath(folder)))
        print(f"passed: {test.__name__}", flush=True)


if __name__ == "__main__":
    main()
