"""A child that breaks the rules of envs/host/protocol.h in the way that its first argument names. Standard library
only; arguments: WAY MEMORY FROM TO."""

import mmap
import os
import struct
import sys
import time

way, memory, source, sink = sys.argv[1], *map(int, sys.argv[2:5])
MAGIC, VERSION, SLOTS = 0x74736F6874616E71, 2, 2


def read(size):
    data = b""
    while len(data) < size:
        part = os.read(source, size - len(data))
        if not part:
            sys.exit(0)
        data += part
    return data


def send(message, size=None):
    os.write(sink, struct.pack("<Q", len(message) if size is None else size) + message)


def text(word):
    return struct.pack("<Q", len(word)) + word.encode()


def description(magic=MAGIC, version=VERSION, dtype=3, shape=(2,), kind=0, n=3, mask=1):
    return (struct.pack("<QI", magic, version) + text("") + text("hostile") + struct.pack("<Q", 1) + text("x") +
            struct.pack("<IQ", dtype, len(shape)) + struct.pack(f"<{len(shape)}q", *shape) + struct.pack("<dd", -9, 9) +
            struct.pack("<Iq", kind, n) + struct.pack("<QQQB", 0, 0, 0, mask) + struct.pack("<QqBBQ", 0, 0, 0, 0, 0))


WAYS = {
    "magic": dict(magic=1),
    "version": dict(version=7),
    "dtype": dict(dtype=9),
    "huge": dict(shape=(1 << 40,)),
    "negative": dict(shape=(-1,)),
    "kind": dict(kind=7),
    "no actions": dict(n=0),
    "big": dict(shape=(1 << 27,), dtype=3),
}
read(struct.unpack("<Q", read(8))[0])
if way == "silence":
    time.sleep(60)
if way == "long message":
    send(b"", 1 << 40)
    time.sleep(60)
if way == "half":
    os.write(sink, struct.pack("<Q", 100) + b"x")
    sys.exit(0)
if way == "noise":
    send(bytes(range(256)))
    time.sleep(60)
if way == "tail":
    send(description() + b"x")
    time.sleep(60)
send(description(**WAYS.get(way, {})))
layout = read(struct.unpack("<Q", read(8))[0])
(_, _, slots, seeds, which, actions, rewards, terminated, truncated, resetting, mask, final_mask, metrics, scratch,
 total) = struct.unpack_from("<QI13Q", layout)
_, observation, _, final = struct.unpack_from("<4Q", layout, 12 + 13 * 8)
if way == "shrink":
    try:
        os.ftruncate(memory, 0)
        os._exit(1)  # then reading would kill the other side
    except PermissionError:
        pass
    # Without seals of ours the program would have to trust it not to.
shared = mmap.mmap(memory, total)
os.write(sink, b"\1")
while read(1):
    number, command = struct.unpack_from("<II", shared)
    shared[mask:mask + 3 * SLOTS] = b"\1" * 3 * SLOTS
    shared[final_mask:final_mask + 3 * SLOTS] = b"\1" * 3 * SLOTS
    struct.pack_into("<2f", shared, rewards, 1, 1)
    answer, bell = number, b"\1"
    if command == 2:
        if way == "flag":
            shared[terminated + 1] = 7
        if way == "mask":
            shared[mask + 4] = 2
        if way == "resetting":
            shared[resetting] = 1
        if way == "reset flag":
            shared[resetting + 1] = 9
        if way == "nan":
            struct.pack_into("<f", shared, observation + 8, float("nan"))
        if way == "number":
            answer = number + 1
        if way == "bell":
            bell = b"\7"
        if way == "error":
            struct.pack_into("<IqQ", shared, 68, 1, 1 << 40, 1 << 60)
            shared[192:192 + 3072] = b"A" * 3072
            struct.pack_into("<q", shared, 72, 1 << 40)
            struct.pack_into("<Q", shared, 80, 1 << 60)
        if way == "zero step":
            struct.pack_into("<2f", shared, rewards, 3, 3)
            shared[resetting] = 1
            shared[terminated] = 1
    struct.pack_into("<I", shared, 64, answer)
    os.write(sink, bell)
