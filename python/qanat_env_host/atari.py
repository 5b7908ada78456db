"""Atari games by ale-py's own vector environment: its threads are C++, one Python call steps the batch.

Every field of AtariVectorEnv is set here, since its defaults are nobody's protocol (no sticky actions although the ids
say 0.25, clipped rewards, a stack of four, fire pressed at the start). One frame is asked for: stacks are made where
they are needed. Rewards are never clipped here. The loss of a life ends an episode without a reset of the game: ale-py's
own `episodic_life` does reset it.

docs/environments_python.md names the source of each field of each preset.
"""

import ale_py
import gymnasium as gym
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode

from qanat_env_host.backends import SEED_BITS, Vector, Views
from qanat_env_host.errors import Unsupported

# What ids of the form ALE/...-v5 say.
V5 = {
    "frameskip": 4,
    "repeat_action_probability": 0.25,
    "noop_max": 0,
    "full_action_space": False,
    "life_loss_ends_episode": False,
    "max_num_frames_per_episode": 108_000,
    "evaluation_max_num_frames_per_episode": 108_000,
    "use_fire_reset": False,
    "maxpool": True,
    "img_height": 84,
    "img_width": 84,
}
PAPERS_2015 = {**V5, "repeat_action_probability": 0.0, "noop_max": 30, "life_loss_ends_episode": True}
# The least and the greatest value of each number; ale-py takes others without a word, or never answers.
RANGES = {
    "frameskip": (1, 1000),
    "repeat_action_probability": (0.0, 1.0),
    "noop_max": (0, 10_000),
    "max_num_frames_per_episode": (1, 2**31 - 1),
    "evaluation_max_num_frames_per_episode": (1, 2**31 - 1),
    "img_height": (1, 1024),
    "img_width": (1, 1024),
}
PRESETS = {
    "v5": V5,
    "dqn2015": {**PAPERS_2015, "evaluation_max_num_frames_per_episode": 18_000},
    "machado2018": {**V5, "frameskip": 5, "full_action_space": True, "max_num_frames_per_episode": 18_000,
                    "evaluation_max_num_frames_per_episode": 18_000},
    "apex": {**PAPERS_2015, "max_num_frames_per_episode": 50_000},
    "btr": {**V5, "noop_max": 30},
    "pqn": {**PAPERS_2015, "use_fire_reset": True},
    "atari100k": PAPERS_2015,
}


def protocol_of(preset, kwargs, evaluation, limit):
    """The resolved fields. kwargs change single ones; limit: env.max_episode_steps, 0: the preset's frames."""
    fields = dict(PRESETS[preset])
    for key, value in kwargs.items():
        if key not in fields:
            raise Unsupported(f"env.kwargs has {key!r}, which is no field of an Atari protocol: {', '.join(fields)}")
        if type(value) is not type(fields[key]) and not (type(fields[key]) is float and type(value) is int):
            raise Unsupported(f"env.kwargs: {key} is {value!r}, wanted {type(fields[key]).__name__}")
        least, most = RANGES.get(key, (value, value))
        if not least <= value <= most:
            raise Unsupported(f"env.kwargs: {key} is {value!r}, wanted {least} to {most}")
        fields[key] = value
    if limit > 0:
        fields["max_num_frames_per_episode"] = limit * fields["frameskip"]
        fields["evaluation_max_num_frames_per_episode"] = limit * fields["frameskip"]
    frames = fields.pop("evaluation_max_num_frames_per_episode")
    if evaluation:
        fields["max_num_frames_per_episode"] = frames
        fields["life_loss_ends_episode"] = False
    return fields


def make(request, slots, kwargs, limit):
    name = request["id"]
    gym.register_envs(ale_py)
    try:
        game = gym.spec(name).kwargs["game"]
    except gym.error.Error as error:
        raise Unsupported(f"env.gymnasium {name}: {error}") from None
    fields = protocol_of(request["atari_preset"], kwargs, request["evaluation"] == "1", limit)
    threads = int(request["atari_threads"])
    arguments = {key: value for key, value in fields.items() if key != "life_loss_ends_episode"}
    env = AtariVectorEnv(
        game=game, num_envs=slots, batch_size=0, num_threads=threads, thread_affinity_offset=-1, continuous=False,
        autoreset_mode=AutoresetMode.SAME_STEP, grayscale=True, stack_num=1, episodic_life=False, life_loss_info=False,
        reward_clipping=False, **arguments)
    frames = fields["max_num_frames_per_episode"]
    steps = -(-frames // fields["frameskip"])
    backend = Atari(name, env, slots, steps, fields["life_loss_ends_episode"])
    return backend, {"ale_py": ale_py.__version__, "preset": request["atari_preset"], "game": game, **fields,
                     "grayscale": True, "reward_clipping": False, "threads": threads}


class Atari(Vector):
    def __init__(self, name, env, slots, limit, life_loss_ends):
        super().__init__(name, env, slots, limit, Views("first"))
        self.life_loss_ends = life_loss_ends
        self.lives = np.zeros(slots, np.int32)
        self.seeds_each = self.resets_some = True

    def first_reset(self):
        return self.env.reset(seed=np.arange(self.slots))

    def reset(self, seeds, which, out):
        chosen = np.ones(self.slots, bool) if which is None else which
        numbers = (seeds[chosen] & np.uint64(SEED_BITS)).astype(np.int64)
        options = None if which is None else {"reset_mask": which}
        observation, info = self.env.reset(seed=numbers, options=options)
        self.write_rows(observation, chosen, out.observation)
        self.lives[chosen] = info["lives"][chosen]
        out.resetting[chosen] = 0

    def step(self, actions, out):
        done, info = super().step(actions, out)
        # After a reset within the step, `lives` is the new game's: those slots have ended anyway.
        lost = (info["lives"] < self.lives) & ~done
        self.lives[:] = info["lives"]
        if self.life_loss_ends and lost.any():
            out.terminated[lost] = 1
            out.final_observation[lost] = out.observation[lost]
        return done, info
