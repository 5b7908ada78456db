#!/usr/bin/env python3
"""How fast a whole run goes on this machine: MinAtar breakout, all processes, real sockets.

Usage: run.py QANAT CONFIG [--json] [--seconds S] [--ratios R ...]

For each replay ratio one run of S seconds; printed are env steps/s and updates/s (means after a warm-up), the share
of processor time that goes to neither stepping, inferring nor training, and each role's idle share. Actors time stepping
and inferring by the wall clock (docs/metrics.md), so that on a busy machine the share reads too low. The balanced
ratio is the one at which actors and learner+shards use the most equal processor time. A row with a machine that is
busy with other work is worthless: the share of the machine that the run got is printed too.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from processes import children_of, cpu_seconds, interrupt, metrics_of, role_of


def one_run(qanat, config, ratio, seconds, warm_up):
    with tempfile.TemporaryDirectory() as runs:
        command = [qanat, "train", config, "--runs-dir", runs, "--name", "bench", "--seed", "1",
                   "--set", "learner.device=cpu", "--set", f"replay.ratio={ratio}", "--set", "stop.wall_seconds=0",
                   "--set", "evaluation.every_seconds=100000", "--set", "checkpoint.every_seconds=0",
                   "--set", "checkpoint.replay=false"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(warm_up)
            pids = {pid: role_of(pid) for pid in children_of(process.pid)}
            pids[process.pid] = "train"
            begin_cpu = {pid: cpu_seconds(pid) for pid in pids}
            begin = time.monotonic()
            first = metrics_of(os.path.join(runs, "bench"))[-1]
            time.sleep(seconds)
            end_cpu = {pid: cpu_seconds(pid) for pid in pids}
            elapsed = time.monotonic() - begin
            lines = [m for m in metrics_of(os.path.join(runs, "bench")) if m["time"] >= first["time"]]
        finally:
            interrupt(process)
    cpu = {}
    count = {}
    for pid, role in pids.items():
        cpu[role] = cpu.get(role, 0) + end_cpu[pid] - begin_cpu[pid]
        count[role] = count.get(role, 0) + 1
    last = lines[-1]
    span = last["time"] - first["time"]
    mean = lambda name: sum(m.get(name, 0) for m in lines[1:]) / max(1, len(lines) - 1)
    useful = elapsed * (count["actor"] * (mean("actor_env_share") + mean("actor_inference_share"))
                        + mean("learner_train_share"))
    total = sum(cpu.values())
    return {
        "ratio": ratio,
        "env_steps_per_second": (last["env_steps"] - first["env_steps"]) / span,
        "updates_per_second": (last["updates"] - first["updates"]) / span,
        "overhead_share": 1 - useful / total,
        "machine_share": total / elapsed / len(os.sched_getaffinity(0)),
        "cpu": {role: round(used / elapsed, 3) for role, used in sorted(cpu.items())},
        "idle": {role: round(max(0.0, 1 - used / elapsed / count[role]), 3) for role, used in sorted(cpu.items())},
        "imbalance": abs(cpu["actor"] - cpu["learner"] - cpu["replay"]),
        "achieved_ratio": last.get("replay_ratio"),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("qanat")
    parser.add_argument("config")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--warm-up", type=float, default=5)
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.16, 0.25, 0.5, 0.64])
    args = parser.parse_args()
    rows = []
    for ratio in args.ratios:
        row = one_run(args.qanat, args.config, ratio, args.seconds, args.warm_up)
        rows.append(row)
        if not args.json:
            print(f"ratio {ratio:5.2f}: {row['env_steps_per_second']:8.0f} env steps/s, {row['updates_per_second']:6.0f} "
                  f"updates/s, overhead {100 * row['overhead_share']:4.1f}%, machine {100 * row['machine_share']:3.0f}%, "
                  f"idle {row['idle']}", flush=True)
    best = min(rows, key=lambda row: row["imbalance"])
    if args.json:
        for name, unit in (("env_steps_per_second", "1/s"), ("updates_per_second", "1/s"), ("overhead_share", "1"),
                           ("machine_share", "1"), ("ratio", "1")):
            print(json.dumps({"name": f"train/{name}", "value": best[name], "unit": unit, "ratio": best["ratio"]}))
        for role, share in best["idle"].items():
            print(json.dumps({"name": f"train/idle_share/{role}", "value": share, "unit": "1", "ratio": best["ratio"]}))
    else:
        print(f"balanced: ratio {best['ratio']:.2f}: {best['env_steps_per_second']:.0f} env steps/s, "
              f"{best['updates_per_second']:.0f} updates/s of the configured batch, overhead "
              f"{100 * best['overhead_share']:.1f}%")


if __name__ == "__main__":
    sys.exit(main())
