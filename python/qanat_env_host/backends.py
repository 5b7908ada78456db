"""Batches of Gymnasium environments behind Qanat's rule: every slot steps in every call, and an ended episode's last
observation and the next one's first come together wherever the environment allows it."""

import importlib
import json

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from qanat_env_host.errors import SlotError, Unsupported
from qanat_env_host.spaces import MASK_KEY, Actions, Observations

# Gymnasium and ale-py take seeds of 31 bits in some places.
SEED_BITS = 0x7FFFFFFF


class Spec:
    def __init__(self, name, observations, actions, has_mask, max_episode_steps, can_render):
        self.id, self.actions, self.has_mask = name, actions, has_mask
        self.dtype, self.shape = observations.dtype, observations.shape
        self.low, self.high = observations.low, observations.high
        self.max_episode_steps, self.can_render = max_episode_steps, can_render


def make(request):
    """The backend for a request, and how it was set up, field by field."""
    name, slots = request["id"], int(request["slots"])
    kwargs = read_kwargs(request["kwargs"])
    limit = int(request["max_episode_steps"])
    if name.startswith("ALE/") and request["vectorization"] != "slots":
        from qanat_env_host import atari

        return atari.make(request, slots, kwargs, limit)
    spec = find(name)
    wanted = request["vectorization"]
    if wanted == "entry_point" and spec.vector_entry_point is None:
        raise Unsupported(f"env.vectorization is entry_point, but {name} has no vector class of its own")
    vector = wanted == "entry_point" or wanted == "auto" and spec.vector_entry_point is not None
    if spec.entry_point is None and not vector:
        raise Unsupported(f"{name} has a vector class only: env.vectorization must be entry_point")
    if limit > 0:
        kwargs["max_episode_steps"] = limit
    if vector:
        env = gym.make_vec(name, num_envs=slots, vectorization_mode="vector_entry_point", **kwargs)
        known = limit or spec.max_episode_steps or 0
        backend = Vector(name, env, slots, known, request["channels"])
    else:
        envs = [gym.make(name, **kwargs) for _ in range(slots)]
        backend = Slots(name, envs, request["channels"])
    # envs/check.cpp reads the two that say what the slots have of their own.
    return backend, {"gymnasium": gym.__version__, "vectorization": "entry_point" if vector else "slots",
                     "single_slot_resets": backend.resets_some, "single_slot_seeds": backend.seeds_each,
                     **{f"kwargs.{key}": value for key, value in kwargs.items()}}


def read_kwargs(text):
    if not text.strip():
        return {}
    try:
        kwargs = json.loads(text)
    except ValueError as error:
        raise Unsupported(f"env.kwargs is {text!r}, a JSON object wanted: {error}") from None
    if not isinstance(kwargs, dict):
        raise Unsupported(f"env.kwargs is {text!r}, a JSON object wanted")
    return kwargs


def find(name):
    """The registered spec of ID or MODULE:ID. Well-known packages are imported when their ids are not there yet."""
    module, _, rest = name.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
    except ImportError as error:
        raise Unsupported(f"env.gymnasium {name}: cannot import {module}: {error}") from None
    if not module and rest.startswith("MinAtar/"):
        register_minatar(name)
    try:
        return gym.spec(rest)
    except gym.error.Error as error:
        raise Unsupported(f"env.gymnasium {name}: {error}") from None


def register_minatar(name):
    try:
        import minatar.gym
    except ImportError as error:
        raise Unsupported(f"env.gymnasium {name} needs minatar: {error}") from None
    if not any(key.startswith("MinAtar/") for key in gym.registry):
        minatar.gym.register_envs()


# What the user's code raises; sys.exit() and a KeyboardInterrupt are failures like any other.
FAILURES = (Exception, SystemExit, KeyboardInterrupt)


def first_of(result):
    if not isinstance(result, tuple) or len(result) != 2:
        seen = f"a tuple of {len(result)}" if isinstance(result, tuple) else type(result).__name__
        raise TypeError(f"reset() returned {seen}, wanted observation, info")
    return result


def checked_flag(name, value):
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"step() returned {name} {value!r} of type {type(value).__name__}, wanted bool")
    return value


class Slots:
    """Single environments, stepped one after the other; each has its own random numbers."""

    resets_some = seeds_each = True

    def __init__(self, name, envs, channels):
        self.envs = envs
        first = envs[0]
        sample, info = first_of(first.reset(seed=0))
        self.actions = Actions(first.action_space)
        self.observations = Observations(first.observation_space, sample, False, channels)
        has_mask = self.observations.has_mask or MASK_KEY in info
        limit = first.spec.max_episode_steps if first.spec is not None and first.spec.max_episode_steps else 0
        self.spec = Spec(name, self.observations, self.actions, has_mask, limit, first.render_mode == "rgb_array")
        self.has_mask = has_mask

    def reset(self, seeds, which, out):
        for slot, env in enumerate(self.envs):
            if which is not None and not which[slot]:
                continue
            out.progress[0] = slot
            try:
                observation, info = first_of(env.reset(seed=int(seeds[slot]) & SEED_BITS))
                self.observations.write(observation, out.observation[slot])
                self.write_mask(observation, info, out.mask, slot)
            except FAILURES as error:
                raise SlotError(slot) from error
            out.resetting[slot] = 0
        out.progress[0] = -1

    def step(self, actions, out):
        one, write, progress = self.actions.one, self.observations.write, out.progress
        observations, has_mask = out.observation, self.has_mask
        slot = 0
        try:
            for slot, env in enumerate(self.envs):
                progress[0] = slot
                result = env.step(one(actions[slot]))
                if not isinstance(result, tuple) or len(result) != 5:
                    seen = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
                    raise TypeError(f"step() returned {seen}, wanted observation, reward, terminated, truncated, info")
                observation, reward, terminated, truncated, info = result
                out.rewards[slot] = float(reward)
                out.terminated[slot] = checked_flag("terminated", terminated)
                out.truncated[slot] = checked_flag("truncated", truncated)
                if terminated or truncated:
                    write(observation, out.final_observation[slot])
                    if has_mask:
                        self.write_mask(observation, info, out.final_mask, slot, final=True)
                    observation, info = first_of(env.reset())
                write(observation, observations[slot])
                if has_mask:
                    self.write_mask(observation, info, out.mask, slot)
        except FAILURES as error:
            raise SlotError(slot) from error
        progress[0] = -1

    def write_mask(self, observation, info, out, slot, final=False):
        if not self.has_mask:
            return
        mask = observation[MASK_KEY] if self.observations.has_mask else info.get(MASK_KEY)
        out[slot] = checked_mask(mask, self.actions.choices, final)

    def render(self, slot):
        return picture_of(self.envs[slot].render())


def checked_mask(mask, choices, final):
    """0s and 1s [choices]. At an episode's end nothing need be allowed: then everything counts as allowed."""
    if mask is None:
        return np.ones(choices, np.uint8)
    mask = np.asarray(mask).reshape(-1)
    if mask.shape != (choices,):
        raise ValueError(f"the action mask has {mask.size} entries, wanted {choices}")
    mask = mask.astype(bool)
    if not mask.any():
        if not final:
            raise ValueError("the action mask allows nothing")
        return np.ones(choices, np.uint8)
    return mask.astype(np.uint8)


def picture_of(frame):
    frame = np.ascontiguousarray(frame)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise TypeError(f"render() gave {frame.dtype} {frame.shape}, wanted uint8 [height, width, 3]")
    return frame


class Vector:
    """A vector environment of one class of its own, in any of Gymnasium's three autoreset modes.

    NEXT_STEP: the call after an end ignores the slot's action and brings the first observation; that call is marked in
    `resetting`, so that nobody takes it for a step. SAME_STEP: the last observation is in info["final_obs"]. DISABLED:
    ended slots are reset by reset_mask within the same call."""

    def __init__(self, name, env, slots, limit, channels, actions=None):
        if env.num_envs != slots:
            raise Unsupported(f"{name} made {env.num_envs} environments, {slots} wanted")
        self.env, self.slots = env, slots
        mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self.mode = AutoresetMode(mode) if isinstance(mode, str) else mode
        # Whether each slot has random numbers of its own. Where it has not, one seed is for all.
        self.seeds_each = isinstance(env.unwrapped, (SyncVectorEnv, AsyncVectorEnv))
        self.resets_some = self.seeds_each or self.mode == AutoresetMode.DISABLED
        self.actions = actions or Actions(env.single_action_space)
        sample, info = self.first_reset()
        self.observations = Observations(env.single_observation_space, sample, True, channels)
        self.has_mask = self.observations.has_mask or MASK_KEY in info
        can_render = False
        self.spec = Spec(name, self.observations, self.actions, self.has_mask, limit, can_render)
        self.all = np.ones(slots, bool)

    def first_reset(self):
        return self.env.reset(seed=0)

    def seed_of(self, seeds, which):
        numbers = [int(seed) & SEED_BITS for seed in seeds]
        return numbers if self.seeds_each else numbers[0 if which is None else int(np.argmax(which))]

    def reset(self, seeds, which, out):
        if which is not None and not self.resets_some:
            raise Unsupported("its vector class cannot reset single slots; env.vectorization: slots can, or an "
                              "evaluation.max_steps that is not below the environment's own limit")
        options = None if which is None else {"reset_mask": which}
        observation, info = self.env.reset(seed=self.seed_of(seeds, which), options=options)
        if which is None:
            which = self.all
            self.observations.write(observation, out.observation)
        else:
            self.write_rows(observation, which, out.observation)
        self.write_masks(observation, info, which, out.mask)
        out.resetting[which] = 0

    def write_rows(self, batch, which, out):
        rows = np.empty_like(out)
        self.observations.write(batch, rows)
        out[which] = rows[which]

    def step(self, actions, out):
        observation, rewards, terminated, truncated, info = self.env.step(self.actions.batch(actions))
        if np.shape(rewards) != (self.slots,):
            raise TypeError(f"step() gave rewards of shape {np.shape(rewards)}, wanted ({self.slots},)")
        out.rewards[:] = rewards
        out.terminated[:] = terminated
        out.truncated[:] = truncated
        done = np.logical_or(terminated, truncated)
        self.observations.write(observation, out.observation)
        if self.mode == AutoresetMode.NEXT_STEP:
            out.resetting[:] = done
        if self.has_mask:
            last = done & (self.mode != AutoresetMode.SAME_STEP)  # rows that still show the ended episode
            self.write_masks(observation, info, self.all, out.mask, last)
        if done.any():
            self.end_episodes(observation, info, done, out)
        return done, info

    def end_episodes(self, observation, info, done, out):
        if self.mode == AutoresetMode.SAME_STEP:
            self.take_final(info, done, out)
            return
        out.final_observation[done] = out.observation[done]
        if self.has_mask:
            self.write_masks(observation, info, done, out.final_mask, done)
        if self.mode == AutoresetMode.DISABLED:
            fresh, fresh_info = self.env.reset(options={"reset_mask": done.copy()})
            self.write_rows(fresh, done, out.observation)
            self.write_masks(fresh, fresh_info, done, out.mask)

    def take_final(self, info, done, out):
        """SAME_STEP: rows of info["final_obs"] count only where an episode ended."""
        final = info.get("final_obs")
        if final is None:
            raise TypeError('SAME_STEP, but info has no "final_obs" where an episode ended')
        for slot in np.flatnonzero(done):
            row = take_row(final, slot)
            self.write_one(row, out.final_observation, slot)
            if self.has_mask:
                mask = row[MASK_KEY] if self.observations.has_mask else take_mask(info.get("final_info"), slot)
                out.final_mask[slot] = checked_mask(mask, self.actions.choices, True)

    def write_one(self, observation, out, slot):
        batch = batch_of_one(observation)
        self.observations.write(batch, out[slot:slot + 1], rows=1)

    def write_masks(self, observation, info, which, out, last=None):
        """last: [slots], rows at an episode's end, where nothing need be allowed."""
        if not self.has_mask:
            return
        masks = observation[MASK_KEY] if self.observations.has_mask else info.get(MASK_KEY)
        for slot in np.flatnonzero(which):
            given = masks is not None and (self.observations.has_mask or info.get("_" + MASK_KEY) is None or
                                           info["_" + MASK_KEY][slot])
            at_end = last is not None and last[slot]
            out[slot] = checked_mask(masks[slot] if given else None, self.actions.choices, at_end)

    def render(self, slot):
        raise Unsupported("pictures of vector classes are not supported")


def take_row(tree, slot):
    if isinstance(tree, dict):
        return {key: take_row(value, slot) for key, value in tree.items() if not key.startswith("_")}
    if isinstance(tree, tuple):
        return tuple(take_row(value, slot) for value in tree)
    return tree[slot]


def take_mask(info, slot):
    masks = info.get(MASK_KEY) if isinstance(info, dict) else None
    return None if masks is None else masks[slot]


def batch_of_one(tree):
    if isinstance(tree, dict):
        return {key: batch_of_one(value) for key, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(batch_of_one(value) for value in tree)
    return np.asarray(tree)[None]
