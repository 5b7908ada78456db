#!/usr/bin/env python3
"""The way of a batch from the shards to the GPU, hop by hop, with nothing holding either side back.

Usage: run.py QANAT CONFIG [--json] [--seconds S] [--most-wait SHARE] [--set a.b=c ...]

CONFIG runs with replay.ratio 0, all processes and real sockets. For each hop: GB/s that passed, samples/s, and the share
of time its thread (or the bus, or the GPU) was busy; the busiest one is what to improve next. The bus's share needs
PyTorch, which measures what a page-locked copy reaches; without it only the bytes are told. With --set replay.ratio=R the
ratio holds back; exit code 1 when the learner then waited for batches for more than --most-wait of its time.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from processes import children_of, interrupt, metrics_of, role_of, thread_seconds

IO_THREADS = "ZMQbg/IO/"


def bus_bytes_per_second():
    """What a page-locked copy to the GPU reaches, or None without PyTorch and a GPU."""
    try:
        import torch
        if not torch.cuda.is_available():
            return None
        host = torch.empty(64 << 20, dtype=torch.uint8, pin_memory=True)
        device = torch.empty_like(host, device="cuda")
        times = []
        for _ in range(12):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            device.copy_(host, non_blocking=True)
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1e3)
        return host.numel() / sorted(times)[len(times) // 2]
    except ImportError:
        return None


def traffic(run_dir):
    """Seconds of the run, and bytes of each process so far: (role, index) -> (in, out)."""
    with open(os.path.join(run_dir, "status.json")) as file:
        status = json.load(file)
    return status["wall_seconds"], {(p["role"], p["index"]): (p["bytes_in"], p["bytes_out"]) for p in status["processes"]}


def measure(args):
    with tempfile.TemporaryDirectory() as runs:
        run_dir = os.path.join(runs, "hops")
        command = [args.qanat, "train", args.config, "--runs-dir", runs, "--name", "hops", "--seed", "1"]
        for setting in ["replay.ratio=0", "stop.wall_seconds=0", "stop.at_target_score=false",
                        "evaluation.every_seconds=100000", "checkpoint.every_seconds=0", "checkpoint.replay=false",
                        *args.set]:
            command += ["--set", setting]
        said = os.path.join(runs, "said")
        with open(said, "w") as file:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
        try:
            deadline = time.monotonic() + 60
            while not any(line.get("updates", 0) > 20 for line in metrics_of(run_dir)):
                if process.poll() is not None:
                    with open(said) as file:
                        sys.exit(f"the run ended before its first updates: {' '.join(command)}\n{file.read()}")
                if time.monotonic() > deadline:
                    sys.exit(f"no updates after 60 s: {' '.join(command)}")
                time.sleep(0.1)
            time.sleep(args.warm_up)
            pids = {pid: role_of(pid) for pid in children_of(process.pid)}
            threads = {pid: thread_seconds(pid) for pid in pids}
            first = metrics_of(run_dir)[-1]
            first_time, first_traffic = traffic(run_dir)
            begin = time.monotonic()
            time.sleep(args.seconds)
            busy = {}  # (role, kind of thread) -> the busiest one's share
            elapsed = time.monotonic() - begin
            for pid, role in pids.items():
                for name, used in thread_seconds(pid).items():
                    kind = ("io" if name.startswith(IO_THREADS) else "helper" if name.startswith("helper") else
                            "main" if not name.startswith("ZMQ") else "other")
                    share = (used - threads[pid].get(name, 0)) / elapsed
                    busy[role, kind] = max(busy.get((role, kind), 0), share)
            lines = [line for line in metrics_of(run_dir) if line["time"] >= first["time"]]
            last_time, last_traffic = traffic(run_dir)
        finally:
            interrupt(process)
    span = last_time - first_time
    sent = sum(last_traffic[key][1] - first_traffic[key][1] for key in last_traffic if key[0] == "replay") / span
    received = sum(last_traffic[key][0] - first_traffic[key][0] for key in last_traffic if key[0] == "learner") / span
    updates = (lines[-1]["updates"] - lines[0]["updates"]) / (lines[-1]["time"] - lines[0]["time"])
    mean = lambda name: sum(line.get(name) or 0 for line in lines[1:]) / max(1, len(lines) - 1)
    bus = bus_bytes_per_second()
    return {
        "updates_per_second": updates,
        "waits": {"for a batch": mean("learner_wait_share"), "for credits": mean("learner_hold_share")},
        "hops": [
            ("shard: draw and gather", sent, busy["replay", "main"]),
            ("shard: socket out", sent, busy["replay", "io"]),
            ("learner: socket in", received, busy["learner", "io"]),
            ("learner: check, page-locked copy, bookkeeping", received, busy["learner", "main"]),
            ("bus: page-locked copy to the GPU", received, received / bus if bus else None),
            ("GPU: updates", received, mean("learner_device_share")),
        ],
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("qanat")
    parser.add_argument("config")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--most-wait", type=float, default=1)
    parser.add_argument("--warm-up", type=float, default=3)
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    batch = next(int(line.split(":")[1]) for line in
                 subprocess.run([args.qanat, "config", "show", args.config] + [x for s in args.set for x in ("--set", s)],
                                capture_output=True, text=True, check=True).stdout.split("\nlearner:")[1].splitlines()
                 if line.strip().startswith("batch:"))
    seen = measure(args)
    samples = seen["updates_per_second"] * batch
    waited_too_long = int(seen["waits"]["for a batch"] > args.most_wait)
    slowest = max((hop for hop in seen["hops"] if hop[2] is not None), key=lambda hop: hop[2])
    if args.json:
        print(json.dumps({"name": "hops/samples_per_second", "value": samples, "unit": "1/s"}))
        for name, rate, share in seen["hops"]:
            print(json.dumps({"name": f"hops/{name}", "value": rate / 1e9, "unit": "GB/s", "busy_share": share,
                              "busiest": name == slowest[0]}))
        return waited_too_long
    print(f"{seen['updates_per_second']:.0f} updates/s of {batch}: {samples:.0f} samples/s; the learner waited "
          + ", ".join(f"{share:.0%} {what}" for what, share in seen["waits"].items()))
    for name, rate, share in seen["hops"]:
        print(f"{name:42} {rate / 1e9:6.2f} GB/s   busy {'unknown' if share is None else f'{share:.0%}':>5}")
    print(f"the busiest: {slowest[0]}")
    return waited_too_long


if __name__ == "__main__":
    sys.exit(main())
