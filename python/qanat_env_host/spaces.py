"""What Qanat makes of Gymnasium's spaces.

Observations become one array a slot, u8 or f32, since that is what networks read:
- one Box or MultiBinary keeps its shape; a scalar becomes [1], more than three dimensions become one;
- bool and uint8 stay bytes; every other number becomes float32 (float64 is rounded, integers are exact below 2^24);
- a picture (three dimensions) becomes [channels, height, width];
- Discrete and MultiDiscrete become 0s and a 1 for each number;
- Dict and Tuple, nested or not: with one part it is that part, else all parts are laid end to end as one float32 [F],
  in the order of the space. A key "action_mask" at the top is the mask and no observation.
What counts are the arrays that the environment really gives, not what its space declares. Their shapes may not change,
and their types only where nothing is lost.
"""

import numpy as np
from gymnasium import spaces

from qanat_env_host.errors import Unsupported
from qanat_env_host.protocol import BOX, DISCRETE, MULTI_DISCRETE
from qanat_env_host.values import note, numbers_of, part, path_text

MASK_KEY = "action_mask"
UNBOUNDED = float("inf")


def leaves_of(space, path=()):
    """(path, space) of every part that holds numbers, in order. Raises Unsupported naming the part that does not."""
    if isinstance(space, spaces.Dict):
        return [leaf for key, part in space.spaces.items() if not (path == () and key == MASK_KEY)
                for leaf in leaves_of(part, (*path, key))]
    if isinstance(space, spaces.Tuple):
        return [leaf for index, part in enumerate(space.spaces) for leaf in leaves_of(part, (*path, index))]
    if isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        return [(path, space)]
    where = f" at {path_text(path)}" if path else ""
    raise Unsupported(f"its observation space{where} is {type(space).__name__}; wanted Box, Discrete, MultiDiscrete, "
                      "MultiBinary, or Dict and Tuple of them")


def readable(space):
    try:
        return bool(leaves_of(space, (None,)))
    except Unsupported:
        return False


def chosen_leaves(space, names):
    """leaves_of, of the parts that env.observations names, in its order; of all when it names none."""
    parts = list(space.spaces) if isinstance(space, spaces.Dict) else []
    if not names:
        try:
            return leaves_of(space)
        except Unsupported as error:
            good = [str(key) for key in parts if key != MASK_KEY and readable(space.spaces[key])]
            if not good:
                raise
            raise Unsupported(f"{error}; env.observations: [{', '.join(good)}] takes the parts that can be "
                              "taken") from None
    if not isinstance(space, spaces.Dict):
        raise Unsupported(f"env.observations names {', '.join(names)}, but its observation space is "
                          f"{type(space).__name__}, a Dict wanted")
    for name in names:
        if name not in space.spaces or name == MASK_KEY:
            raise Unsupported(f"env.observations names {name!r}, its observation space has "
                              f"{', '.join(str(key) for key in parts if key != MASK_KEY)}")
    return [leaf for name in names for leaf in leaves_of(space.spaces[name], (name,))]


class Leaf:
    """One part of an observation: how its array is checked and turned into numbers."""

    def __init__(self, path, space, sample, batched):
        self.path, self.space, self.batched = path, space, batched
        array = numbers_of(part(sample, path), f"observation{path_text(path)}")
        self.dtype, self.shape = array.dtype, array.shape
        if array.size == 0:
            raise Unsupported(f"its observation{path_text(path)} has shape {self.shape}, at least one number wanted")
        self.own_shape = self.shape[1:] if batched else self.shape
        self.one_hot = isinstance(space, (spaces.Discrete, spaces.MultiDiscrete))
        self.highest = None  # of what bytes may hold; None where it becomes f32
        if self.one_hot:
            self.counts = np.atleast_1d(np.asarray(getattr(space, "nvec", getattr(space, "n", None)))).reshape(-1)
            self.starts = np.broadcast_to(np.asarray(space.start).reshape(-1), self.counts.shape)
            self.offsets = np.concatenate(([0], np.cumsum(self.counts)[:-1]))
            self.size = int(self.counts.sum())
        else:
            if self.own_shape != space.shape:
                raise Unsupported(f"its observation{path_text(path)} has shape {self.own_shape}, its space says "
                                  f"{space.shape}")
            self.size = int(np.prod(self.own_shape, dtype=np.int64))

    def array(self, observation, rows=None):
        """The checked array; `rows`: how many rows a batch has, where it is not that of the sample."""
        array = part(observation, self.path)
        if not isinstance(array, np.ndarray):
            array = numbers_of(array, f"observation{path_text(self.path)}")
        wanted = self.shape if rows is None else (*([rows] if self.batched else []), *self.own_shape)
        if array.shape != wanted or array.dtype != self.dtype and not self.loses_nothing(array):
            raise TypeError(f"observation{path_text(self.path)} is {array.dtype} {array.shape}, the first one was "
                            f"{self.dtype} {wanted}{self.wanted_text()}")
        return array

    def loses_nothing(self, array):
        """Whether an array of another type than the first one's becomes the same numbers."""
        if array.dtype.kind not in "biuf":
            return False
        if (self.one_hot or self.highest is not None) and array.dtype.kind == "f":
            return False
        if self.highest is not None and not (array.min() >= 0 and array.max() <= self.highest):
            return False
        kept = "numbers of a choice" if self.one_hot else "f32" if self.highest is None else "bytes"
        note(f"observation{path_text(self.path)}", f"is {array.dtype}, the first one was {self.dtype}; both become {kept}")
        return True

    def wanted_text(self):
        if self.one_hot:
            return "; whole numbers wanted"
        return "" if self.highest is None else f"; it is kept in bytes, whole numbers of 0 to {self.highest} wanted"

    def flat(self, array):
        """[rows, size] numbers, one row where not batched."""
        rows = array.shape[0] if self.batched else 1
        if not self.one_hot:
            return array.reshape(rows, self.size)
        index = array.reshape(rows, -1).astype(np.int64) - self.starts
        if (index < 0).any() or (index >= self.counts).any():
            raise ValueError(f"observation{path_text(self.path)} is {array}, outside of {self.space}")
        out = np.zeros((rows, self.size), np.uint8)
        out[np.arange(rows)[:, None], index + self.offsets] = 1
        return out


class Observations:
    """Writes what an environment returned into rows of the shared buffer.

    sample: an observation, of one environment or (batched) of a vector environment. names: see chosen_leaves()."""

    def __init__(self, space, sample, batched, channels="auto", names=()):
        leaves = chosen_leaves(space, names)
        if not leaves:
            raise Unsupported("its observation space has no part that holds numbers")
        self.batched = batched
        self.has_mask = isinstance(space, spaces.Dict) and MASK_KEY in space.spaces
        self.leaves = [Leaf(path, leaf, sample, batched) for path, leaf in leaves]
        self.plain = len(self.leaves) == 1 and not self.leaves[0].one_hot
        self.order, self.picture = None, False
        if not self.plain:
            self.dtype, self.shape = "f32", (sum(leaf.size for leaf in self.leaves),)
            self.low, self.high = -UNBOUNDED, UNBOUNDED
            if all(leaf.one_hot for leaf in self.leaves):
                self.low, self.high = 0.0, 1.0
            return
        leaf = self.leaves[0]
        self.dtype = "u8" if leaf.dtype.kind == "b" or leaf.dtype == np.uint8 else "f32"
        self.shape = leaf.own_shape if 1 <= len(leaf.own_shape) <= 3 else (leaf.size,)
        self._take_bounds(leaf)
        if self.dtype == "u8":
            leaf.highest = 1 if leaf.dtype.kind == "b" else 255
        self.picture = len(self.shape) == 3
        if self.picture and channels_last(self.shape, channels):
            self.order = (0, 3, 1, 2) if batched else (2, 0, 1)
            self.shape = (self.shape[2], self.shape[0], self.shape[1])

    def _take_bounds(self, leaf):
        low, high = getattr(leaf.space, "low", 0), getattr(leaf.space, "high", 1)
        low, high = float(np.min(low)), float(np.max(high))
        if self.dtype == "u8":
            low, high = max(low, 0.0), 1.0 if leaf.dtype.kind == "b" else min(high, 255.0)
        self.low, self.high = (low, high) if low <= high else (-UNBOUNDED, UNBOUNDED)

    def write(self, observation, out, rows=None):
        """One observation into its row, or a batch into all rows."""
        if self.plain:
            array = self.leaves[0].array(observation, rows)
            if self.order is not None:
                array = array.transpose(self.order)
            elif array.shape != out.shape:
                array = array.reshape(out.shape)
            np.copyto(out, array, casting="unsafe")
            return
        at = 0
        flat = out.reshape(-1, self.shape[0])
        for leaf in self.leaves:
            flat[:, at:at + leaf.size] = leaf.flat(leaf.array(observation, rows))
            at += leaf.size


def channels_last(shape, channels):
    if channels != "auto":
        return channels == "last"
    return shape[2] <= shape[0]


class Actions:
    """An action space, and how the numbers that Qanat chose become actions."""

    def __init__(self, space):
        self.space, self.n, self.nvec, self.low, self.high = space, 0, [], [], []
        self.start, self.whole = 0, False  # whole: values between are rounded
        if isinstance(space, spaces.Discrete):
            self.kind, self.n = DISCRETE, int(space.n)
            self.start = space.start
        elif isinstance(space, spaces.MultiDiscrete):
            self.kind, self.nvec = MULTI_DISCRETE, [int(n) for n in space.nvec.reshape(-1)]
            self.start = space.start.reshape(-1)
        elif isinstance(space, spaces.MultiBinary):
            self.kind, self.nvec = MULTI_DISCRETE, [2] * int(np.prod(space.shape))
        elif isinstance(space, spaces.Box):
            self.kind = BOX
            self.low, self.high = space.low.reshape(-1).tolist(), space.high.reshape(-1).tolist()
            self.whole = not np.issubdtype(space.dtype, np.floating)
            if not np.isfinite(self.low + self.high).all() or self.whole and max(map(abs, self.low + self.high)) > 2**24:
                raise Unsupported(f"its action space {space} has no bounds{' within 2^24' if self.whole else ''}; a "
                                  "bounded Box wanted")
        else:
            raise Unsupported(f"its action space is {type(space).__name__}; wanted Discrete, MultiDiscrete, MultiBinary "
                              "or a bounded Box")
        self.dims = 1 if self.kind == DISCRETE else max(len(self.nvec), len(self.low))
        self.choices = self.n if self.kind == DISCRETE else sum(self.nvec)
        self.dtype = space.dtype

    def one(self, numbers):
        """numbers: a number (Discrete) or [dims] of one slot."""
        if self.kind == DISCRETE:
            return self.dtype.type(numbers + self.start)
        return self.batch(numbers).reshape(self.space.shape)

    def batch(self, numbers):
        """numbers: [slots] or [slots, dims]."""
        if self.kind == DISCRETE:
            return numbers.astype(self.dtype) + self.start if self.start else numbers.astype(self.dtype)
        return (np.rint(numbers) if self.whole else numbers + self.start).astype(self.dtype)
