"""Batches of Gymnasium environments behind Qanat's rule: every slot steps in every call, and an ended episode's last
observation and the next one's first come together wherever the environment allows it."""

import importlib
import json
import os
import traceback

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from qanat_env_host.errors import SlotError, Unsupported
from qanat_env_host.protocol import IN_CALL, IN_RESET
from qanat_env_host.spaces import MASK_KEY, Actions, Observations
from qanat_env_host.values import (five_of, flag_of, flags_of, numbers_of, part, reward_of, row_of, shown,
                                   two_of)

# Gymnasium and ale-py take seeds of 31 bits in some places.
SEED_BITS = 0x7FFFFFFF


class Spec:
    def __init__(self, name, observations, actions, has_mask, max_episode_steps, can_render):
        self.id, self.actions, self.has_mask = name, actions, has_mask
        self.dtype, self.shape = observations.dtype, observations.shape
        self.low, self.high = observations.low, observations.high
        self.max_episode_steps, self.can_render = max_episode_steps, can_render


def make(request, made):
    """The backend for a request, and how it was set up, field by field. made: called after each of several."""
    name, slots, first_index = request["id"], int(request["slots"]), int(request["first_index"])
    kwargs = arguments_of(request["kwargs"], first_index)
    limit = int(request["max_episode_steps"])
    if name.startswith("ALE/") and request["vectorization"] != "slots":
        from qanat_env_host import atari

        return atari.make(request, slots, kwargs, limit)
    spec = find(name)
    views = Views(request["channels"], [part for part in request["observations"].split("\n") if part])
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
        backend = Vector(name, env, slots, known, views)
    else:
        # Its checker is left out: what it asks for is asked for here, in words that name slot and step.
        envs = []
        for index in range(first_index, first_index + slots):
            own = {"disable_env_checker": True, **kwargs, **arguments_of(request["kwargs"], index)}
            envs.append(gym.make(name, **own))
            made()
        backend = Slots(name, envs, views)
    if request["channels"] != "auto" and not backend.observations.picture:
        raise Unsupported(f"env.channels is {request['channels']}, but its observation has shape "
                          f"{backend.observations.shape}, three dimensions wanted")
    # envs/check.cpp reads the two that say what the slots have of their own.
    return backend, {"gymnasium": gym.__version__, "vectorization": "entry_point" if vector else "slots",
                     "single_slot_resets": backend.resets_some, "single_slot_seeds": backend.seeds_each,
                     **{f"kwargs.{key}": value for key, value in kwargs.items()}}


class Views:
    """How observations are to be read: env.channels and env.observations."""

    def __init__(self, channels="auto", names=()):
        self.channels, self.names = channels, names

    def of(self, space, sample, batched):
        return Observations(space, sample, batched, self.channels, self.names)


def arguments_of(text, index):
    """env.kwargs of the instance of that number, which the environment finds in QANAT_ENV_INDEX too."""
    os.environ["QANAT_ENV_INDEX"] = str(index)
    return read_kwargs(text.replace("{index}", str(index)))


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
        hint = "" if module else f"; MODULE:{rest} imports the module that registers it first"
        raise Unsupported(f"env.gymnasium {name}: {error}{hint}") from None


def register_minatar(name):
    try:
        import minatar.gym
    except ImportError as error:
        raise Unsupported(f"env.gymnasium {name} needs minatar: {error}") from None
    if not any(key.startswith("MinAtar/") for key in gym.registry):
        minatar.gym.register_envs()


# What the user's code raises; sys.exit() and a KeyboardInterrupt are failures like any other.
FAILURES = (Exception, SystemExit, KeyboardInterrupt)


GYMNASIUM = os.path.dirname(gym.__file__)


class Returned:
    """Remembers what the innermost environment returned: where a wrapper around it cannot read that, its words would
    name neither the value nor what was wanted."""

    def __init__(self, env):
        self.result, self.check = None, None
        base = env.unwrapped
        try:
            base.step, base.reset = self.remembering(base.step, five_of), self.remembering(base.reset, two_of)
        except AttributeError:
            pass  # it allows no attributes; its wrappers' words must do

    def remembering(self, call, check):
        def called(*args, **kwargs):
            self.result, self.check = None, None
            self.result = call(*args, **kwargs)
            self.check = check
            return self.result

        return called

    def explain(self):
        """Raises when the innermost environment's last result was none."""
        if self.check is not None:
            result = self.check(self.result)
            if self.check is five_of:
                reward_of(result[1])
                flag_of("terminated", result[2])
                flag_of("truncated", result[3])


class Slots:
    """Single environments, stepped one after the other; each has its own random numbers."""

    resets_some = seeds_each = True

    def __init__(self, name, envs, views):
        self.envs = envs
        self.returned = [Returned(env) for env in envs]
        first = envs[0]
        sample, info = two_of(first.reset(seed=0))
        self.actions = Actions(first.action_space)
        self.observations = views.of(first.observation_space, sample, False)
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
                observation, info = two_of(env.reset(seed=int(seeds[slot]) & SEED_BITS))
                self.observations.write(observation, out.observation[slot])
                self.write_mask(observation, info, out.mask, slot)
            except FAILURES as error:
                raise SlotError(slot, self.explained(slot, error)) from error
            out.resetting[slot] = 0
        out.progress[0] = -1

    def step(self, actions, out):
        one, write, progress = self.actions.one, self.observations.write, out.progress
        observations, has_mask = out.observation, self.has_mask
        slot = 0
        try:
            for slot, env in enumerate(self.envs):
                progress[0] = slot
                observation, reward, terminated, truncated, info = five_of(env.step(one(actions[slot])))
                out.rewards[slot] = reward_of(reward)
                out.terminated[slot] = ended = flag_of("terminated", terminated)
                out.truncated[slot] = cut = flag_of("truncated", truncated)
                if ended or cut:
                    write(observation, out.final_observation[slot])
                    if has_mask:
                        self.write_mask(observation, info, out.final_mask, slot, final=True)
                    out.phase[0] = IN_RESET
                    observation, info = two_of(env.reset())
                    out.phase[0] = IN_CALL
                write(observation, observations[slot])
                if has_mask:
                    self.write_mask(observation, info, out.mask, slot)
        except FAILURES as error:
            raise SlotError(slot, self.explained(slot, error)) from error
        progress[0] = -1

    def explained(self, slot, error):
        """What went wrong in the slot: what it returned, where a wrapper could not read that."""
        place = traceback.extract_tb(error.__traceback__)[-1].filename
        if place.startswith(GYMNASIUM):
            try:
                self.returned[slot].explain()
            except TypeError as why:
                return why
        return error

    def write_mask(self, observation, info, out, slot, final=False):
        if not self.has_mask:
            return
        if not self.observations.has_mask and not isinstance(info, dict):
            raise TypeError(f"step() returned info {shown(info)}, wanted a dict")
        mask = part(observation, (MASK_KEY,)) if self.observations.has_mask else info.get(MASK_KEY)
        out[slot] = checked_mask(mask, self.actions.choices, final)

    def render(self, slot):
        return picture_of(self.envs[slot].render())

    def close(self):
        for env in self.envs:
            try:
                env.close()
            except FAILURES:  # the others shall be closed too
                traceback.print_exc()


def checked_mask(mask, choices, final):
    """0s and 1s [choices]. At an episode's end nothing need be allowed: then everything counts as allowed."""
    if mask is None:
        return np.ones(choices, np.uint8)
    mask = numbers_of(mask, "the action mask").reshape(-1)
    if mask.shape != (choices,):
        raise ValueError(f"the action mask has {mask.size} entries, wanted {choices}")
    mask = mask.astype(bool)
    if not mask.any():
        if not final:
            raise ValueError("the action mask allows nothing")
        return np.ones(choices, np.uint8)
    return mask.astype(np.uint8)


def picture_of(frame):
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise TypeError(f"render() gave {shown(frame)}, wanted uint8 [height, width, 3]")
    return np.ascontiguousarray(frame)


class Vector:
    """A vector environment of one class of its own, in any of Gymnasium's three autoreset modes.

    NEXT_STEP: the call after an end ignores the slot's action and brings the first observation; that call is marked in
    `resetting`, so that nobody takes it for a step. SAME_STEP: the last observation is in info["final_obs"]. DISABLED:
    ended slots are reset by reset_mask within the same call."""

    def __init__(self, name, env, slots, limit, views, actions=None):
        if env.num_envs != slots:
            raise Unsupported(f"{name} made {env.num_envs} environments, {slots} wanted")
        self.env, self.slots = env, slots
        mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self.mode = AutoresetMode(mode) if isinstance(mode, str) else mode
        # Whether each slot has random numbers of its own. Where it has not, one seed is for all.
        self.seeds_each = isinstance(env.unwrapped, (SyncVectorEnv, AsyncVectorEnv))
        self.resets_some = self.seeds_each or self.mode == AutoresetMode.DISABLED
        self.actions = actions or Actions(env.single_action_space)
        sample, info = two_of(self.first_reset())
        self.observations = views.of(env.single_observation_space, sample, True)
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
        observation, info = two_of(self.env.reset(seed=self.seed_of(seeds, which), options=options))
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
        observation, rewards, terminated, truncated, info = five_of(self.env.step(self.actions.batch(actions)))
        out.rewards[:] = row_of("rewards", rewards, self.slots)
        out.terminated[:] = flags_of("terminated", terminated, self.slots)
        out.truncated[:] = flags_of("truncated", truncated, self.slots)
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
            out.phase[0] = IN_RESET
            fresh, fresh_info = two_of(self.env.reset(options={"reset_mask": done.copy()}))
            out.phase[0] = IN_CALL
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
                mask = part(row, (MASK_KEY,)) if self.observations.has_mask else take_mask(info.get("final_info"), slot)
                out.final_mask[slot] = checked_mask(mask, self.actions.choices, True)

    def write_one(self, observation, out, slot):
        batch = batch_of_one(observation)
        self.observations.write(batch, out[slot:slot + 1], rows=1)

    def write_masks(self, observation, info, which, out, last=None):
        """last: [slots], rows at an episode's end, where nothing need be allowed."""
        if not self.has_mask:
            return
        masks = part(observation, (MASK_KEY,)) if self.observations.has_mask else info.get(MASK_KEY)
        for slot in np.flatnonzero(which):
            given = masks is not None and (self.observations.has_mask or info.get("_" + MASK_KEY) is None or
                                           info["_" + MASK_KEY][slot])
            at_end = last is not None and last[slot]
            out[slot] = checked_mask(masks[slot] if given else None, self.actions.choices, at_end)

    def render(self, slot):
        raise Unsupported("pictures of vector classes are not supported")

    def close(self):
        self.env.close()


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
