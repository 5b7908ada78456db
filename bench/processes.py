"""What the benchmarks of whole runs share: processes of a run, their processor time, their metrics."""
import json
import os
import signal
import time

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """Processor seconds a process has used, or None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS
    except (OSError, IndexError):
        return None


def metrics_of(run_dir):
    try:
        with open(os.path.join(run_dir, "metrics.jsonl")) as file:
            return [json.loads(line) for line in file if line.endswith("\n")]
    except OSError:
        return []


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def role_of(pid):
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read().split("\0")[1]


def thread_seconds(pid):
    """Processor seconds of each thread of a process: name -> seconds; ZeroMQ's I/O threads are "ZMQbg/IO/0" and so on,
    those that help to check and copy batches "helper-THREAD_ID"."""
    seconds = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/stat") as file:
            name, fields = file.read().split("(", 1)[1].rsplit(")", 1)
        fields = fields.split()
        if name == "helper":
            name = f"helper-{thread}"
        seconds[name] = seconds.get(name, 0) + (int(fields[11]) + int(fields[12])) / TICKS
    return seconds


def interrupt(process):
    """Ends a run at once: the second Ctrl-C leaves out saving and evaluating."""
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.wait()
