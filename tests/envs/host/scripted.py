"""Environments for the tests of the host, whose every number can be worked out by hand.

The observation is f32 [3]: (the seed of the last seeded reset, episode since then, t). The step taken at t of episode e
pays 10 * e + t + 1. Episode e has lengths[e % len(lengths)] steps and ends as ends[e % len(ends)] says: "terminated",
"truncated" or "both". Actions change nothing; there are three.

at: [episode, t] of the step in which `what` happens, when the slot's seed is `slot_seed` (or always, 0): raise, nan,
nan_reward, flag, dtype, shape, hang, stop, crash, kill, exit. once: a file that is made before it happens; where it is
there already nothing happens, so that a restarted process does not repeat it. form: "old" resets return no info.
"""

import os
import pathlib
import signal
import subprocess
import time

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv


class Script(gym.Env):
    def __init__(self, lengths=(3, 1, 2), ends=("terminated",), at=(-1, -1), what="", once="", slot_seed=0, mask="",
                 reset_what="", form=""):
        self.lengths, self.ends, self.at = lengths, ends, tuple(at)
        self.what, self.once, self.slot_seed, self.mask, self.reset_what = what, once, slot_seed, mask, reset_what
        self.form = form
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
        if mask == "key":
            self.observation_space = spaces.Dict(
                {"action_mask": spaces.MultiBinary(3), "place": self.observation_space})
        self.action_space = spaces.Discrete(3)
        self.tag, self.episode, self.t = -1, -1, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.tag, self.episode = seed, -1
        self.episode, self.t = self.episode + 1, 0
        if self.reset_what and self.episode > 0:
            self.happen(self.reset_what)
        return self.observe()[0] if self.form == "old" else self.observe()

    def step(self, action):
        assert self.action_space.contains(action), action
        reward = 10 * self.episode + self.t + 1
        now = (self.episode, self.t) == self.at and self.slot_seed in (0, self.tag)
        if now and self.what not in ("nan", "nan_reward", "flag", "dtype", "shape"):
            self.happen(self.what)
        self.t += 1
        last = self.t == self.lengths[self.episode % len(self.lengths)]
        end = self.ends[self.episode % len(self.ends)] if last else ""
        observation, info = self.observe()
        if now and self.what == "nan":
            observation[1] = np.nan
        if now and self.what == "dtype":
            observation = observation.astype(np.float64)
        if now and self.what == "shape":
            observation = observation[:2]
        if now and self.what == "nan_reward":
            reward = float("nan")
        terminated = None if now and self.what == "flag" else end in ("terminated", "both")
        return observation, reward, terminated, end in ("truncated", "both"), info

    def observe(self):
        place = np.array([self.tag, self.episode, self.t], np.float32)
        allowed = np.array([1, self.t % 2, 1 - self.t % 2], np.int8)
        if self.mask == "key":
            return {"action_mask": allowed, "place": place}, {}
        return place, {"action_mask": allowed} if self.mask == "info" else {}

    def happen(self, what):
        if self.once:
            try:
                os.close(os.open(self.once, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
        if what == "raise":
            raise ValueError(f"scripted failure at {self.at}")
        if what == "hang":
            time.sleep(1000)
        if what == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if what == "crash":
            os._exit(3)
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "exit":
            raise SystemExit(4)


def script_vector(num_envs, mode="NextStep", parallel=False, **kwargs):
    kind = AsyncVectorEnv if parallel else SyncVectorEnv
    return kind([lambda: Script(**kwargs) for _ in range(num_envs)], autoreset_mode=mode)


class Whole(gym.vector.VectorEnv):
    """Scripts that are reset all at once or begin their next episodes by themselves, as Gymnasium's own classes."""

    metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs, **kwargs):
        self.num_envs, self.inner = num_envs, script_vector(num_envs, **kwargs)
        self.single_observation_space, self.observation_space = self.inner.single_observation_space, self.inner.observation_space
        self.single_action_space, self.action_space = self.inner.single_action_space, self.inner.action_space

    def reset(self, *, seed=None, options=None):
        return self.inner.reset(seed=seed)

    def step(self, actions):
        return self.inner.step(actions)


class Shapes(gym.Env):
    """Gives what `observation` names and takes what `action` names; the reward is the sum of the action's numbers."""

    OBSERVATIONS = {
        "picture": (spaces.Box(0, 255, (4, 5, 3), np.uint8), lambda: np.arange(60, dtype=np.uint8).reshape(4, 5, 3)),
        "real picture": (spaces.Box(0, 1, (4, 5, 3)), lambda: np.arange(60, dtype=np.float32).reshape(4, 5, 3) / 60),
        "mission": (
            spaces.Dict({"words": spaces.Text(5), "way": spaces.Discrete(4),
                         "image": spaces.Box(0, 255, (4, 5, 3), np.uint8)}),
            lambda: {"words": "x", "way": 2, "image": np.arange(60, dtype=np.uint8).reshape(4, 5, 3)},
        ),
        "bool": (spaces.Box(0, 1, (2, 2), bool), lambda: np.array([[True, False], [False, True]])),
        "double": (spaces.Box(-1, 1, (2,), np.float64), lambda: np.array([0.25, -0.1])),
        "lie": (spaces.Box(0, 255, (3,), np.uint8), lambda: np.array([1, 300, 2], np.int64)),
        "scalar": (spaces.Box(-5, 5, (), np.float32), lambda: np.array(1.5, np.float32)),
        "discrete": (spaces.Discrete(4, start=2), lambda: np.int64(5)),
        "multi": (spaces.MultiDiscrete([2, 3]), lambda: np.array([1, 2])),
        "binary": (spaces.MultiBinary(3), lambda: np.array([1, 0, 1], np.int8)),
        "nested": (
            spaces.Dict({"b": spaces.Tuple((spaces.Box(-1, 1, (2,)), spaces.Discrete(3))), "a": spaces.Box(0, 9, (1,))}),
            lambda: {"b": (np.array([0.5, -0.5], np.float32), 1), "a": np.array([7], np.float32)},
        ),
        "text": (spaces.Dict({"words": spaces.Text(5)}), lambda: {"words": "x"}),
        "volume": (spaces.Box(0, 1, (2, 2, 2, 2), np.float32), lambda: np.ones((2, 2, 2, 2), np.float32)),
    }
    ACTIONS = {
        "discrete": spaces.Discrete(3, start=5),
        "multi": spaces.MultiDiscrete([2, 3]),
        "binary": spaces.MultiBinary(2),
        "box": spaces.Box(np.array([-1, 0], np.float32), np.array([1, 4], np.float32)),
        "whole box": spaces.Box(0, 3, (1,), np.int64),
        "unbounded": spaces.Box(-np.inf, np.inf, (1,)),
        "many": spaces.MultiDiscrete([100, 100]),
        "tuple": spaces.Tuple((spaces.Discrete(2),)),
    }

    def __init__(self, observation="double", action="discrete"):
        self.observation_space, self.give = self.OBSERVATIONS[observation]
        self.action_space = self.ACTIONS[action]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.give(), {}

    def step(self, action):
        assert self.action_space.contains(action), (action, type(action))
        return self.give(), np.sum(action), False, False, {}


class Drift(gym.Env):
    """What step() returns differs from what reset() did, as `what` says."""

    PICTURE = spaces.Box(0, 255, (2, 2), np.uint8)
    VECTOR = spaces.Box(-9, 9, (2,), np.float32)
    # space, first observation, later ones, reward, terminated, info
    WAYS = {
        "double": (VECTOR, np.array([1, 2], np.float32), np.array([1, 2], np.float64), 1.0, False, {}),
        "list": (VECTOR, [1, 2], [1.5, 2.5], 1.0, False, {}),
        "int": (spaces.Discrete(3), np.int64(1), np.int32(2), 1.0, False, {}),
        "wide": (PICTURE, np.full((2, 2), 7, np.uint8), np.full((2, 2), 200, np.int64), 1.0, False, {}),
        "too wide": (PICTURE, np.full((2, 2), 7, np.uint8), np.full((2, 2), 256, np.int64), 1.0, False, {}),
        "real bytes": (PICTURE, np.full((2, 2), 7, np.uint8), np.full((2, 2), 0.5, np.float32), 1.0, False, {}),
        "real choice": (spaces.Discrete(3), np.int64(1), np.float64(1), 1.0, False, {}),
        "0-d flag": (VECTOR, np.zeros(2, np.float32), np.zeros(2, np.float32), 1.0, np.array(True), {}),
        "1 flag": (VECTOR, np.zeros(2, np.float32), np.zeros(2, np.float32), 1.0, 1, {}),
        "2 flag": (VECTOR, np.zeros(2, np.float32), np.zeros(2, np.float32), 1.0, 2, {}),
        "one reward": (VECTOR, np.zeros(2, np.float32), np.zeros(2, np.float32), np.array([1.5]), False, {}),
        "vector reward": (VECTOR, np.zeros(2, np.float32), np.zeros(2, np.float32), np.array([1.5, 2]), False, {}),
        "list reward": (VECTOR, np.zeros(2, np.float32), np.zeros(2, np.float32), [1, 2], False, {}),
        "no reward": (VECTOR, np.zeros(2, np.float32), np.zeros(2, np.float32), None, False, {}),
        "no observation": (VECTOR, np.zeros(2, np.float32), None, 1.0, False, {}),
        "ragged": (VECTOR, np.zeros(2, np.float32), [[1], [1, 2]], 1.0, False, {}),
        "empty": (spaces.Box(-9, 9, (0,), np.float32), np.zeros(0, np.float32), np.zeros(0, np.float32), 1.0, False, {}),
        "no info": (VECTOR, np.zeros(2, np.float32), np.zeros(2, np.float32), 1.0, False, None),
        "part": (spaces.Dict({"a": VECTOR, "b": VECTOR}), {"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float32)},
                 {"a": np.zeros(2, np.float32)}, 1.0, False, {}),
        "four": (VECTOR, np.zeros(2, np.float32), np.zeros(2, np.float32), 1.0, False, {}),
    }
    action_space = spaces.Discrete(2)

    def __init__(self, what):
        self.what = what
        self.observation_space, self.first, *self.rest = self.WAYS[what]

    def reset(self, *, seed=None, options=None):
        return self.first, self.rest[-1]

    def step(self, action):
        observation, reward, terminated, info = self.rest
        if self.what == "four":
            return observation, reward, terminated, info
        return observation, reward, terminated, False, info


class Slow(gym.Env):
    """Takes its time for each making, reset and step; every step ends an episode."""

    observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Discrete(2)

    def __init__(self, make_seconds=0, reset_seconds=0, step_seconds=0):
        time.sleep(make_seconds)
        self.reset_seconds, self.step_seconds, self.first = reset_seconds, step_seconds, True

    def reset(self, *, seed=None, options=None):
        if not self.first:  # the host's own, to see what it gives
            time.sleep(self.reset_seconds)
        self.first = False
        return np.zeros(1, np.float32), {}

    def step(self, action):
        time.sleep(self.step_seconds)
        return np.zeros(1, np.float32), 0.0, True, False, {}


class Family(gym.Env):
    """Starts a process in a session of its own, and one that terminate() must end; `folder` gets their numbers and
    tells that close() was called."""

    observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Discrete(2)

    def __init__(self, folder, index, close_seconds=0):
        self.folder, self.close_seconds = pathlib.Path(folder), close_seconds
        child = subprocess.Popen(["sleep", "300"], start_new_session=True)
        grandchild = subprocess.run(["setsid", "sh", "-c", "sleep 300 >/dev/null 2>&1 & echo $!"], stdout=subprocess.PIPE, text=True)
        (self.folder / f"pids-{index}").write_text(f"{child.pid} {grandchild.stdout.strip()}")
        (self.folder / f"index-{index}").write_text(os.environ["QANAT_ENV_INDEX"])
        one = subprocess.Popen(["sleep", "300"])
        one.terminate()
        one.wait()
        self.index = index

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {}

    def close(self):
        time.sleep(self.close_seconds)
        (self.folder / f"closed-{self.index}").touch()


gym.register("Drift-v0", entry_point=Drift, max_episode_steps=50)
gym.register("Slow-v0", entry_point=Slow)
gym.register("Family-v0", entry_point=Family)
gym.register("Script-v0", entry_point=Script, disable_env_checker=True)
gym.register("ScriptVector-v0", vector_entry_point=script_vector)
gym.register("Whole-v0", vector_entry_point=Whole)
gym.register("Shapes-v0", entry_point=Shapes, disable_env_checker=True)
