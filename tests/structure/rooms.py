"""The architecture as a check: who may include whom, where third-party headers may stand, how long a file may be.

usage: rooms.py ROOT. Prints one line a violation; exit code 1 when there is one.
"""

import re
import sys
from pathlib import Path

SOURCES = {".h", ".hpp", ".c", ".cpp", ".cu", ".cuh"}
MOST_LINES = 800

# What a room may include besides itself: folders, or single headers where only a part is shared.
PUBLIC = "qanat/"
CORE = {"core/"}
WIRE = CORE | {"wire/"}
NN = {"nn/" + h for h in ("network.h", "backend.h", "normalization.h", "optimizer.h", "td.h")}
REPLAY_RULES = {"replay/schema.h", "replay/stack.h"}  # the rules of data that actors and shards share
REPLAY_CLIENT = {"replay/" + h for h in ("client.h", "config.h", "run_schema.h", "sample_table.h")} | REPLAY_RULES
MAY_INCLUDE = {
    "include": set(),
    "core": set(),
    "wire": CORE,
    "envs": CORE | {PUBLIC},
    "nn": CORE,
    "control": WIRE,
    "replay": CORE,
    "replay on the wire": WIRE | {"control/"},
    "actors": WIRE | {"envs/", "control/"} | NN | REPLAY_RULES,
    "learner": WIRE | {"control/"} | NN | REPLAY_CLIENT,
    "cli": WIRE | {PUBLIC, "envs/", "nn/", "control/", "replay/", "actors/", "learner/"},
}
ROOMS = [room for room in MAY_INCLUDE if " " not in room]
REPLAY_ON_THE_WIRE = re.compile(r"replay/(server|client|sample_table|run_schema)")

# Third-party headers and the only files that may include them.
THIRD_PARTY = {
    r"zmq\.h(pp)?": r"wire/socket\.cpp",
    r"yaml-cpp/": r"core/\w+\.cpp",
    r"cereal/": r"wire/messages\.cpp",
    r"xxhash\.h": r"core/\w+\.cpp",
    r"CLI/": r"cli/main\.cpp",
    r"nlohmann/": r"(core/\w+\.cpp|core/config_values\.h|(learner|cli)/\w+\.cpp)",
    r"zlib\.h": r"core/animation\.cpp",
    r"hwy/": r"(nn/cpu|replay)/[\w-]+\.(cpp|h)",
    r"(cuda|cublas|cudnn|cooperative_groups)\w*\.h": r"nn/cuda/.*",
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def room_of(file):
    return "replay on the wire" if REPLAY_ON_THE_WIRE.match(file) else file.split("/")[0]


def include_violation(file, header):
    """Why `file` may not include the project's `header`; None when it may."""
    room = room_of(file)
    own = PUBLIC if room == "include" else file.split("/")[0] + "/"
    if header.startswith(own):
        if room == "replay" and REPLAY_ON_THE_WIRE.match(header):
            return "replay's core does not know the wire"
        if header.startswith("nn/cpu/") and not file.startswith("nn/cpu/") and file != "nn/backend.cpp":
            return "nn/cpu only implements nn/backend.h: the factory nn/backend.cpp alone names it"
        if header.startswith("nn/cuda/") and not file.startswith("nn/cuda/"):
            return "nn/cuda is opened at run time: nobody outside includes it"
        return None
    if any(header == may or may.endswith("/") and header.startswith(may) for may in MAY_INCLUDE[room]):
        return None
    return f"{room} may not include it"


def third_party_violation(file, header):
    for pattern, where in THIRD_PARTY.items():
        if re.match(pattern, header) and not re.fullmatch(where, file):
            return f"only {where} may"
    return None


def check_file(root, path):
    file = path.relative_to(root).as_posix()
    lines = path.read_text().splitlines()
    if len(lines) > MOST_LINES:
        yield f"{file}: {len(lines)} lines; split it by idea (at most {MOST_LINES})"
    in_a_room = file.split("/")[0] in ROOMS
    for number, line in enumerate(lines, 1):
        if not in_a_room or not (match := INCLUDE.match(line)):
            continue
        header = match[2]
        ours = header.startswith(PUBLIC) or header.split("/")[0] in ROOMS and "/" in header
        why = include_violation(file, header) if ours else third_party_violation(file, header)
        if why:
            yield f"{file}:{number}: includes {header}: {why}"


def check(root):
    files = [p for room in [*ROOMS, "tests", "bench"] for p in (root / room).rglob("*") if p.suffix in SOURCES]
    for path in sorted(files):
        yield from check_file(root, path)
    for path in [root / "CMakeLists.txt", *root.glob("*/CMakeLists.txt"), *root.glob("cmake/*.cmake")]:
        if path.exists() and "-march=native" in path.read_text():
            yield f"{path.relative_to(root)}: -march=native: what is built runs on other machines; dispatch at run time"


def main():
    root = Path(sys.argv[1])
    violations = list(check(root))
    print("\n".join(violations) or "rooms: every include is allowed")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
