"""The memory file of envs/host/protocol.h: the control block and the buffers."""

import mmap
import struct

import numpy as np

from qanat_env_host import protocol

NUMPY_DTYPES = {"u8": np.uint8, "f32": np.float32}
ERROR_BYTES = 3072
ERROR_AT = 192
PROGRESS_AT = 128
PHASE_AT = 136
NOTE_BYTES = 768
NOTE_AT = ERROR_AT + ERROR_BYTES


class Shared:
    """The memory file: the control block and numpy views of the buffers, row s for slot s."""

    def __init__(self, file, layout_message, spec):
        at = protocol.check_head(layout_message)
        (self.slots, seeds, which, actions, rewards, terminated, truncated, resetting, mask, final_mask, metrics,
         scratch, total) = struct.unpack_from("<13Q", layout_message, at)
        at += 13 * 8
        _, observation, _, final = struct.unpack_from("<4Q", layout_message, at)
        self.memory = mmap.mmap(file, total)

        def view(dtype, offset, *shape):
            count = int(np.prod(shape, dtype=np.int64))
            return np.frombuffer(self.memory, dtype, count, offset).reshape(shape)

        n = self.slots
        space = spec.actions
        self.words = memoryview(self.memory)[:128].cast("I")
        self.seeds = view(np.uint64, seeds, n)
        self.which = view(np.uint8, which, n)
        if space.kind == protocol.DISCRETE:
            self.actions = view(np.int32, actions, n)
        else:
            self.actions = view(np.float32 if space.kind == protocol.BOX else np.int32, actions, n, space.dims)
        self.rewards = view(np.float32, rewards, n)
        self.terminated = view(np.uint8, terminated, n)
        self.truncated = view(np.uint8, truncated, n)
        self.resetting = view(np.uint8, resetting, n)
        choices = space.choices if spec.has_mask else 0
        self.mask = view(np.uint8, mask, n, choices)
        self.final_mask = view(np.uint8, final_mask, n, choices)
        dtype = NUMPY_DTYPES[spec.dtype]
        self.observation = view(dtype, observation, n, *spec.shape)
        self.final_observation = view(dtype, final, n, *spec.shape)
        self.progress = view(np.int64, PROGRESS_AT, 1)
        self.phase = view(np.uint32, PHASE_AT, 1)
        self._scratch, self._total = scratch, total

    @property
    def slot(self):
        return struct.unpack_from("<Q", self.memory, 8)[0]

    @property
    def some(self):
        return self.words[6] != 0

    def set_error(self, slot, message):
        data = message.encode("utf-8", "replace")[:ERROR_BYTES]
        struct.pack_into("<qQ", self.memory, 72, slot, len(data))
        self.memory[ERROR_AT:ERROR_AT + len(data)] = data

    def set_note(self, text):
        data = text.encode("utf-8", "replace")[:NOTE_BYTES]
        self.memory[NOTE_AT:NOTE_AT + len(data)] = data
        self.words[28] = len(data)

    def set_picture(self, picture):
        """picture: uint8 [height, width, 3]."""
        if picture.nbytes > self._total - self._scratch:
            raise ValueError(f"render() gave a picture of {picture.nbytes} bytes, at most "
                             f"{self._total - self._scratch} wanted")
        struct.pack_into("<ii", self.memory, 96, picture.shape[0], picture.shape[1])
        np.frombuffer(self.memory, np.uint8, picture.nbytes, self._scratch)[:] = picture.reshape(-1)
