"""Two builds of Qanat in interleaved runs, with a control: the same build twice.

usage: compare.py BASE_BUILD NEW_BUILD --root TREE [--pairs N] [--within SHARE] [NAME]...; scripts/compare makes the builds.

A round runs base, new and base again, each in another place of the round from one to the next, so that a machine whose
speed drifts treats all alike. Every figure is a rate; of each round the ratios new / base and control / base are kept.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile


def output(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"compare: {' '.join(command)} ended with {done.returncode}\n{done.stderr}")
    return done.stdout


def json_lines(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def train(build, root):
    """Env steps and updates of a whole run, MinAtar breakout, at a fixed replay ratio."""
    lines = json_lines(output([sys.executable, f"{root}/bench/train/run.py", f"{build}/qanat",
                               f"{root}/configs/minatar/breakout.yaml", "--json", "--seconds", "8", "--warm-up", "3",
                               "--ratios", "0.25"]))
    return {line["name"]: line["value"] for line in lines if line["name"].endswith("per_second")}


def replay(build, root):
    """The replay core in one process; --quick is too short to tell two per cent."""
    lines = json_lines(output([f"{build}/bench/replay/bench_replay", "--json"]))
    return {f"replay/{line['name']}": line["value"] for line in lines}


def cartpole(build, root):
    """CartPole from the command to its end after a fixed number of updates; runs to a score differ by luck."""
    with tempfile.TemporaryDirectory() as runs:
        output([f"{build}/qanat", "train", f"{root}/configs/cartpole.yaml", "--runs-dir", runs, "--name", "run", "--seed", "1",
                "--set", "stop.at_target_score=false", "--set", "stop.updates=8000", "--set", "learner.device=cpu"])
        with open(os.path.join(runs, "run", "summary.json")) as file:
            return {"cartpole/8000_updates_per_second_of_command": 8000 / json.load(file)["command_seconds"]}


BENCHMARKS = {"train": train, "replay": replay, "cartpole": cartpole}


def verdict(ratios, control, within):
    """Whether the figure fell by more than `within` and below what the control's noise explains."""
    return statistics.median(ratios) < 1 - within and statistics.median(ratios) < min(control)


def compare(name, args):
    """Runs one benchmark's rounds, prints a row for each figure; the names of those that are slower."""
    builds = {"base": args.base, "new": args.new, "control": args.base}
    order = list(builds)
    rounds = []
    for turn in range(args.pairs):
        rounds.append({which: BENCHMARKS[name](builds[which], args.root) for which in order[turn % 3:] + order[:turn % 3]})
        print(f"{name}: round {turn + 1} of {args.pairs}", file=sys.stderr, flush=True)
    slower = []
    for figure in rounds[0]["base"]:
        ratios = [r["new"][figure] / r["base"][figure] for r in rounds]
        control = [r["control"][figure] / r["base"][figure] for r in rounds]
        bad = verdict(ratios, control, args.within)
        print(f"{figure:46} base {statistics.median(r['base'][figure] for r in rounds):10.4g}  new/base "
              f"{statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}]  control "
              f"{statistics.median(control):.3f} [{min(control):.3f}, {max(control):.3f}]  {'SLOWER' if bad else 'ok'}",
              flush=True)
        if bad:
            slower.append(figure)
    return slower


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("new")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--root", required=True, help="the tree with the benchmarks' scripts and configurations")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--within", type=float, default=0.02)
    args = parser.parse_intermixed_args()
    unknown = set(args.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(BENCHMARKS)}")
    slower = [figure for name in args.names or BENCHMARKS for figure in compare(name, args)]
    print("slower: " + ", ".join(slower) if slower else "nothing is slower")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
