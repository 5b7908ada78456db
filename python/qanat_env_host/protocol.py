"""The messages of envs/host/protocol.h. No numpy here: that it is missing must be told too."""

import os
import struct

MAGIC = 0x74736F6874616E71
VERSION = 2
MAX_MESSAGE = 1 << 20

RESET, STEP, SNAPSHOT, RESTORE, RENDER, CLOSE = 1, 2, 3, 4, 5, 6
# What the child is at within a call.
IN_CALL, IN_RESET = 0, 1
DTYPES = {"u8": 0, "f32": 3}
DISCRETE, MULTI_DISCRETE, BOX = 0, 1, 2

class Closed(Exception):
    """The other side is gone."""


def read_exactly(source, size):
    parts = b""
    while len(parts) < size:
        part = os.read(source, size - len(parts))
        if not part:
            raise Closed
        parts += part
    return parts


def receive(source):
    (size,) = struct.unpack("<Q", read_exactly(source, 8))
    if size > MAX_MESSAGE:
        raise ValueError(f"a message of {size} bytes")
    return read_exactly(source, size)


def send(sink, message):
    data = struct.pack("<Q", len(message)) + message
    while data:
        data = data[os.write(sink, data):]


def check_head(message):
    magic, version = struct.unpack_from("<QI", message)
    if magic != MAGIC or version != VERSION:
        raise ValueError(f"the program speaks version {version} of the host protocol, this package {VERSION}")
    return 12


def _string(value):
    data = value.encode("utf-8", "replace")
    return struct.pack("<Q", len(data)) + data


def _vector(values, code):
    return struct.pack(f"<Q{len(values)}{code}", len(values), *values)


def decode_request(message):
    at = check_head(message)
    (count,) = struct.unpack_from("<Q", message, at)
    at += 8
    words = []
    for _ in range(2 * count):
        (size,) = struct.unpack_from("<Q", message, at)
        words.append(message[at + 8:at + 8 + size].decode())
        at += 8 + size
    return dict(zip(words[::2], words[1::2]))


def encode_refusal(reason):
    return struct.pack("<QI", MAGIC, VERSION) + _string(reason[:30_000] or "no reason was given")


def encode_description(spec, protocol):
    """spec: see backends.Spec. Observation and action kinds are checked again by the reader."""
    out = [struct.pack("<QI", MAGIC, VERSION), _string(""), _string(spec.id), struct.pack("<Q", 1)]
    out += [_string("observation"), struct.pack("<I", DTYPES[spec.dtype]), _vector(spec.shape, "q")]
    out += [struct.pack("<dd", spec.low, spec.high)]
    actions = spec.actions
    out += [struct.pack("<Iq", actions.kind, actions.n), _vector(actions.nvec, "q")]
    out += [_vector(actions.low, "f"), _vector(actions.high, "f")]
    out += [struct.pack("<B", spec.has_mask), struct.pack("<Q", 0)]
    out += [struct.pack("<qBB", spec.max_episode_steps, 0, spec.can_render)]
    out += [struct.pack("<Q", len(protocol))]
    out += [_string(key) + _string(str(value)) for key, value in protocol.items()]
    return b"".join(out)
