"""Where the time of one update goes, kernel by kernel: runs bench_learner under Nsight Compute, uncaptured.

usage: kernel_times.py BENCH_LEARNER [flags of it, such as --batches 512]. Prints each kernel of one update in order with its
microseconds and share, then the sum. Kernels run one at a time here, so the sum is above a graph's time, where branches
overlap.
"""
import csv
import io
import re
import subprocess
import sys

METRIC = "gpu__time_duration.sum"


def launches(command):
    # The library marks its updates for profilers: what it times while it plans must not be slowed down by one.
    run = subprocess.run(["ncu", "--csv", "--metrics", METRIC, "--clock-control", "none", "--profile-from-start", "off",
                          *command, "--capture", "0", "--updates", "2"], capture_output=True, text=True)
    lines = [line for line in run.stdout.splitlines() if line.startswith('"')]
    if not lines:
        sys.exit(f"kernel_times.py: no kernel was seen: {run.stdout[-500:]}{run.stderr[-500:]}")
    scale = {"ns": 1e-3, "nsecond": 1e-3, "us": 1, "usecond": 1, "ms": 1e3, "msecond": 1e3}
    for row in csv.DictReader(io.StringIO("\n".join(lines))):
        if row["Metric Name"] == METRIC:
            yield row["Kernel Name"], float(row["Metric Value"].replace(",", "")) * scale[row["Metric Unit"]]


def main():
    kernels = list(launches(sys.argv[1:]))
    # Every update ends with the optimiser's pass: the last update is what follows the one before the last.
    ends = [i for i, (name, _) in enumerate(kernels) if re.search("step_kernel|apply_kernel", name)]
    update = kernels[ends[-2] + 1:ends[-1] + 1]
    total = sum(time for _, time in update)
    for name, time in update:
        short = re.sub(r"\(anonymous namespace\)::|<unnamed>::|qanat::nn::(cuda|nature)::", "", name)
        print(f"{time:8.2f} us {100 * time / total:5.1f}%  {short[:110]}")
    print(f"{total:8.2f} us in {len(update)} kernels, one after another")


if __name__ == "__main__":
    main()
