"""Faults as a user meets them: processes killed and paused, runs interrupted, resumed, refused, repeated.

usage: run.py QANAT [PART OF A TEST'S NAME]...

Two tests run at a time. Each has a directory of its own, a bound on every wait, and must leave no process behind.
"""

import concurrent.futures
import importlib
import os
import signal
import sys
import time
import traceback

sys.dont_write_bytecode = True  # the tests may lie where nothing can be written
import support

MODULES = ["pauses", "stalls", "kills", "places", "hung", "python_hosts", "lockstep", "saves", "signals", "by_hand",
           "refusals", "checkpoints", "records", "limits", "addresses", "command_line", "cut"]
AT_ONCE = 2


def tests():
    for module in MODULES:
        for name, function in vars(importlib.import_module(module)).items():
            if name.startswith("test_"):
                yield f"{module}.{name[5:]}", function


def run(program, name, function):
    """One test: its failure as text, or nothing."""
    begin = time.monotonic()
    place = support.Place(program, name.split(".")[1])
    failure = None
    try:
        function(place)
        place.check_nobody_left()
    except Exception as error:  # whatever it is, the other tests go on
        failure = str(error) if isinstance(error, support.Failed) else traceback.format_exc()
        failure += f"\nkept: {place.path}"
    place.end(keep=failure is not None)
    print(f"{'ok  ' if not failure else 'FAIL'} {time.monotonic() - begin:5.1f} s  {name}", flush=True)
    return (name, failure) if failure else None


def main(program, *parts):
    program = os.path.abspath(program)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a background job would hand on what it ignores
        signal.signal(number, signal.SIG_DFL)
    chosen = [(name, function) for name, function in tests() if not parts or any(part in name for part in parts)]
    if not chosen:
        sys.exit(f"no test has any of {parts} in its name")
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(lambda test: run(program, *test), chosen))
    failures = [result for result in results if result]
    for name, failure in failures:
        print(f"\n=== {name}\n{failure}")
    print(f"{len(chosen) - len(failures)} of {len(chosen)} passed")
    return 1 if failures else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
