"""Games of the MinAtar Python package, step by step, for tests/envs/minatar_peer.cpp.

usage: minatar_trace.py GAME [--seed N] [--steps N] [--no-ramping]. Exit code 77: the package is not installed.

The package is used through its public interface alone. Sticky actions are off. The actions come from a policy of
ours that looks at the observation and mostly keeps out of danger, so that games get far. Writes lines

  reset OBSERVATION
  step ACTION REWARD ENDED OBSERVATION

with observations as hexadecimal digits of channel x row x column bits, padded with zeros to whole bytes.
"""

import argparse
import sys

import numpy as np

try:
    from minatar import Environment
except ImportError:
    sys.exit(77)

NONE, LEFT, UP, RIGHT, DOWN, FIRE = range(6)
MOVES = {NONE: (0, 0), LEFT: (0, -1), UP: (-1, 0), RIGHT: (0, 1), DOWN: (1, 0), FIRE: (0, 0)}


def packed(state):
    return np.packbits(np.ascontiguousarray(state.transpose(2, 0, 1)).ravel()).tobytes().hex()


def neighbours(cells):
    """The cells of a board and those left and right of them."""
    out = cells.copy()
    out[:, 1:] |= cells[:, :-1]
    out[:, :-1] |= cells[:, 1:]
    return out


def place_of(plane):
    """(row, column) of the only set cell; None when there is none."""
    found = np.argwhere(plane)
    return tuple(found[0]) if len(found) else None


class Policy:
    """Mostly safe actions, sometimes any."""

    def __init__(self, game, rng):
        self.choose = getattr(self, game)
        self.rng = rng

    def action(self, state):
        return int(self.rng.integers(6)) if self.rng.random() < 0.02 else self.choose(state)

    def among(self, actions):
        return int(actions[self.rng.integers(len(actions))])

    def away_from(self, danger, place, actions, rows):
        """One of `actions` after which the player, kept to `rows` and the board, stands on no cell of danger."""
        safe = []
        for action in actions:
            step = MOVES[action]
            row = min(max(place[0] + step[0], rows[0]), rows[1])
            column = min(max(place[1] + step[1], 0), 9)
            if not danger[row, column]:
                safe.append(action)
        return self.among(safe or actions)

    def asterix(self, state):
        danger = neighbours(state[:, :, 1])
        place = place_of(state[:, :, 0])
        treasure = neighbours(state[:, :, 3]) & ~danger
        towards = [a for a, (dr, dc) in MOVES.items()
                   if 1 <= place[0] + dr <= 8 and 0 <= place[1] + dc <= 9 and treasure[place[0] + dr, place[1] + dc]]
        return self.away_from(danger, place, towards or [NONE, LEFT, UP, RIGHT, DOWN], (1, 8))

    def breakout(self, state):
        ball, trail = place_of(state[:, :, 1]), place_of(state[:, :, 2])
        paddle = place_of(state[:, :, 0])[1]
        aim = ball[1] + (ball[1] - trail[1]) * int(self.rng.integers(2))
        return LEFT if aim < paddle else RIGHT if aim > paddle else NONE

    def freeway(self, state):
        return UP if self.rng.random() < 0.9 else self.among([NONE, DOWN])

    def seaquest(self, state):
        danger = neighbours(state[:, :, 4] | state[:, :, 5] | state[:, :, 6])
        danger = neighbours(danger)
        danger[9, :] = False
        place = place_of(state[:, :, 0])
        aboard = int(state[9, :, 8].sum())
        oxygen = int(state[9, :, 7].sum())
        actions = [NONE, LEFT, UP, RIGHT, DOWN, FIRE, FIRE]
        if aboard == 0:
            danger[0, :] = True
        if oxygen <= 3 and aboard > 0:
            actions = [UP]
        divers = np.argwhere(state[:, :, 9])
        if len(divers) and self.rng.random() < 0.7:
            row, column = divers[np.abs(divers - place).sum(1).argmin()]
            actions = [a for a, wanted in ((UP, row < place[0]), (DOWN, row > place[0]), (LEFT, column < place[1]),
                                           (RIGHT, column > place[1])) if wanted] or actions
        return self.away_from(danger, place, actions, (0, 8))

    def space_invaders(self, state):
        cannon = place_of(state[:, :, 0])
        danger = np.zeros((10, 10), dtype=bool)
        danger[9, :] = state[8, :, 5]
        return self.away_from(danger, cannon, [NONE, LEFT, RIGHT, FIRE, FIRE], (9, 9))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("game")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10000)
    parser.add_argument("--no-ramping", action="store_true")
    arguments = parser.parse_args()
    env = Environment(arguments.game, sticky_action_prob=0.0, difficulty_ramping=not arguments.no_ramping)
    env.seed(arguments.seed)
    policy = Policy(arguments.game, np.random.default_rng(arguments.seed))
    env.reset()
    print("reset", packed(env.state()))
    for _ in range(arguments.steps):
        action = policy.action(env.state())
        reward, ended = env.act(action)
        print("step", action, int(reward), int(ended), packed(env.state()))
        if ended:
            env.reset()
            print("reset", packed(env.state()))


if __name__ == "__main__":
    main()
