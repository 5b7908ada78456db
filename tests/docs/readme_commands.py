"""Runs the commands of a README section word by word, in a fresh folder, and looks at what they leave behind.

usage: readme_commands.py README PROGRAM SECTION NAME
  The folder looks like an unpacked bundle: bin/qanat is PROGRAM, scripts, include and configs are the tree's, so that
  nothing is built again. Where QANAT_TEST_PYTHON names a Python of a virtual environment, that is .venv. NAME is the
  environment that the section makes. Exit code 77: the section needs a Python that is not there.
"""

import json
import os
import re
import resource
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

MOST_COMMANDS = 8
MOST_PROCESSOR_SECONDS = 240  # two minutes of a machine with two processors
GOOD_SCORE = 0.9  # a perfect policy has 0.977, each of 100 episodes that never ends costs 0.015, a random one is below 0


def commands_of(readme, section):
    body = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", readme.read_text(), re.M | re.S)[1]
    return [line[2:] for block in re.findall(r"^```console\n(.*?)^```", body, re.M | re.S)
            for line in block.splitlines() if line.startswith("$ ")]


def frames_of(png):
    """The number of frames of an animated PNG, by its acTL chunk."""
    data = png.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n", "not a PNG"
    at = data.index(b"acTL")
    return struct.unpack(">I", data[at + 4:at + 8])[0]


def main():
    readme, program, section, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    commands = commands_of(readme, section)
    assert 1 <= len(commands) <= MOST_COMMANDS, f"{len(commands)} commands, at most {MOST_COMMANDS} wanted"
    python = os.environ.get("QANAT_TEST_PYTHON")
    if any("activate" in command for command in commands):
        if not python or not (Path(python).parent / "activate").exists():
            print("skipped: QANAT_TEST_PYTHON names no Python of a virtual environment")
            return 77
    with tempfile.TemporaryDirectory(prefix="qanat-readme-") as folder:
        folder = Path(folder)
        (folder / "bin").mkdir()
        (folder / "bin" / "qanat").symlink_to(program)
        for part in ("scripts", "include", "configs"):
            (folder / part).symlink_to(readme.parent / part)
        if python:
            (folder / ".venv").symlink_to(Path(python).parent.parent)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        script = "set -e\n" + "".join(f"echo {json.dumps('$ ' + c)}\n{c}\n" for c in commands)
        done = subprocess.run(["bash", "-c", script], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=540)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(done.stdout)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"{len(commands)} commands, {spent:.0f} s of processor time")
        assert done.returncode == 0, f"exit code {done.returncode}"
        assert spent <= MOST_PROCESSOR_SECONDS, f"wanted at most {MOST_PROCESSOR_SECONDS} s"
        summary = json.loads((folder / "runs" / name / "summary.json").read_text())
        score = summary["evaluation"]["mean"]
        assert score >= GOOD_SCORE, f"the trained policy's mean return is {score}, wanted at least {GOOD_SCORE}"
        assert frames_of(folder / f"{name}.png") > 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
