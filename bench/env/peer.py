"""The peer of bench/env: a Gymnasium vector environment called directly. Prints seconds, batches and the
median of a batch in microseconds.

usage: peer.py ID SLOTS SECONDS THREADS. ids ALE/... : ale-py's own vector environment, one frame, its own defaults else.
"""

import sys
import time

import numpy as np


def make(name, slots, threads):
    import gymnasium as gym
    if name.startswith("ALE/"):
        import ale_py
        from ale_py.vector_env import AtariVectorEnv
        gym.register_envs(ale_py)
        return AtariVectorEnv(game=gym.spec(name).kwargs["game"], num_envs=slots, num_threads=threads, stack_num=1)
    return gym.make_vec(name, num_envs=slots, vectorization_mode="vector_entry_point")


def main():
    name, slots, seconds, threads = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    env = make(name, slots, threads)
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, env.single_action_space.n, (64, slots))
    for i in range(20):
        env.step(actions[i])
    times, begin = [time.perf_counter()], time.perf_counter()
    while times[-1] - begin < seconds:
        env.step(actions[len(times) % 64])
        times.append(time.perf_counter())
    print(times[-1] - begin, len(times) - 1, 1e6 * np.median(np.diff(times)))


main()
