"""Reference transitions of classic control, from the Gymnasium Python package.

Writes lines that tests/envs/classic_control.cpp compares with the built-in games:

  limit ID STEPS
  step ID ACTION ; state ; next state ; observation ; REWARD TERMINATED
  episode ID ACTIONS ; first state ; last state ; RETURN TERMINATED TRUNCATED

"step" lines start from states that this script injects, drawn over the whole state space or met on the way of full
episodes; "episode" lines run freely from the injected first state. The committed file was made with

  python gymnasium_compare.py --seed 1 --states 25 > classic_control_reference.txt
"""

import argparse

import gymnasium
import numpy as np

# The part of each state space from which states are drawn: the limits, and a little beyond for CartPole.
SPACES = {
    "CartPole-v1": ([-2.6, -4.0, -0.25, -4.0], [2.6, 4.0, 0.25, 4.0]),
    "MountainCar-v0": ([-1.2, -0.07], [0.6, 0.07]),
    "Acrobot-v1": ([-np.pi, -np.pi, -4 * np.pi, -9 * np.pi], [np.pi, np.pi, 4 * np.pi, 9 * np.pi]),
}

# Edges that a draw hardly meets: the left wall, both sides of the goal.
EDGES = {"MountainCar-v0": [[-1.19, -0.07], [-1.2, 0.0], [0.49, 0.05], [0.4999, 0.0], [0.51, -0.005]]}


def numbers(values):
    return " ".join(repr(float(v)) for v in values)


def inject(env, state):
    env.reset(seed=0)
    env.unwrapped.state = np.array(state, dtype=np.float64)


def state_of(env):
    return np.array(env.unwrapped.state, dtype=np.float64)


def print_step(name, env, action):
    """Steps once and prints it; returns whether the episode goes on."""
    before = state_of(env)
    observation, reward, terminated, truncated, _ = env.step(action)
    print(f"step {name} {action} ; {numbers(before)} ; {numbers(state_of(env))} ; {numbers(observation)} ; "
          f"{float(reward)!r} {int(terminated)}")
    return not (terminated or truncated)


def print_episode(name, env, first, policy):
    inject(env, first)
    state = np.array(first, dtype=np.float64)
    actions = ""
    total = 0.0
    while True:
        action = policy(state)
        _, reward, terminated, truncated, _ = env.step(action)
        state = state_of(env)
        actions += str(action)
        total += float(reward)
        if terminated or truncated:
            break
    print(f"episode {name} {actions} ; {numbers(first)} ; {numbers(state)} ; {total!r} {int(terminated)} "
          f"{int(truncated)}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--states", type=int, default=25, help="injected states an environment")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    print(f"# gymnasium {gymnasium.__version__}, numpy {np.__version__}, seed {arguments.seed}")
    for name, (low, high) in SPACES.items():
        env = gymnasium.make(name)
        actions = int(env.action_space.n)
        print(f"limit {name} {env.spec.max_episode_steps}")
        for state in [rng.uniform(low, high) for _ in range(arguments.states)] + EDGES.get(name, []):
            for action in range(actions):
                inject(env, state)
                print_step(name, env, action)
        # On the way: an episode that pumps energy, or for CartPole a random one, from an ordinary start.
        env.reset(seed=arguments.seed)
        going = True
        for _ in range(2 * arguments.states):
            if not going:
                break
            velocity = state_of(env)[2 if name == "Acrobot-v1" else 1]
            action = int(rng.integers(actions)) if name == "CartPole-v1" else (2 if velocity >= 0 else 0)
            going = print_step(name, env, action)

    def random_policy(actions):
        return lambda state: int(rng.integers(actions))

    cartpole = gymnasium.make("CartPole-v1")
    for _ in range(8):
        print_episode("CartPole-v1", cartpole, rng.uniform(-0.05, 0.05, 4), random_policy(2))
    car = gymnasium.make("MountainCar-v0")
    for _ in range(3):
        print_episode("MountainCar-v0", car, [rng.uniform(-0.6, -0.4), 0.0], random_policy(3))
        print_episode("MountainCar-v0", car, [rng.uniform(-0.6, -0.4), 0.0], lambda s: 2 if s[1] >= 0 else 0)
    # Without torque the acrobot swings gently; under torque it is chaotic, and free runs would say nothing.
    acrobot = gymnasium.make("Acrobot-v1")
    print_episode("Acrobot-v1", acrobot, rng.uniform(-0.1, 0.1, 4), lambda s: 1)


if __name__ == "__main__":
    main()
