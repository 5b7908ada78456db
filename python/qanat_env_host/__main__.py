"""Entry point; see the package's docstring."""

import os
import signal
import sys


def main():
    # Started as a folder, the package's own parent is what must be importable; the user's modules are looked for in
    # the working directory, as `python -c` would.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path.insert(1, os.getcwd())
    if sys.version_info < (3, 10):
        sys.exit(f"env.python is Python {sys.version.split()[0]} ({sys.executable}), 3.10 or newer wanted")
    # Several of these share a machine: numpy's libraries get one thread each unless the user says otherwise.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    from qanat_env_host.server import serve

    # Who sends SIGTERM to a whole service leaves it to the role what becomes of its environments. What these start
    # begins with the signal as it should be: a handler, unlike "ignored", is not inherited by other programs.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    memory, source, sink = map(int, sys.argv[1:4])
    for file in (memory, source, sink):
        os.set_inheritable(file, False)
    serve(memory, source, sink)


if __name__ == "__main__":
    main()
