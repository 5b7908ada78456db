"""The child's life: make the environments, then answer calls until the pipe closes."""

import os
import sys
import time
import traceback

from qanat_env_host import protocol
from qanat_env_host.errors import SlotError, Unsupported

# A call that usually comes soon after the last answer is waited for by looking, up to twice that time: to be woken costs
# 35 us. See envs/host/process.cpp for the measurement and for the other side of the same rule.
WORTH_SPINNING_NS = 100_000
LONGEST_SPIN_NS = 200_000
WAKING_NS = 60_000  # so that one sleep of the other side does not make this one sleep too


def serve(memory_file, source, sink):
    try:
        try:
            request = protocol.decode_request(protocol.receive(source))
            backend, described = make(request, lambda: protocol.send(sink, b""))
        except protocol.Closed:
            return
        except Unsupported as refusal:
            protocol.send(sink, protocol.encode_refusal(str(refusal)))
            return
        except BaseException as error:  # whatever the user's code raises, SystemExit too
            traceback.print_exc()
            protocol.send(sink, protocol.encode_refusal(short(error)))
            return
        protocol.send(sink, protocol.encode_description(backend.spec, described))
        try:
            from qanat_env_host.shared import Shared

            shared = Shared(memory_file, protocol.receive(source), backend.spec)
            os.write(sink, b"\1")
            answer_calls(backend, shared, source, sink)
        except (protocol.Closed, BrokenPipeError):
            pass
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)  # environments' own threads and atexit functions may hang; there is nothing left to save


def make(request, made):
    """made: called after each of several environments."""
    if request["path"]:
        sys.path.insert(1, request["path"])
    # Imported here so that a missing package is told like any other refusal.
    try:
        import numpy  # noqa: F401
    except ImportError as error:
        raise Unsupported(f"env.python is {sys.executable}, which has no numpy: {error}") from None
    try:
        from qanat_env_host import backends
    except ImportError as error:
        raise Unsupported(f"env.python is {sys.executable}, which has no gymnasium: {error}") from None
    return backends.make(request, made)


def answer_calls(backend, shared, source, sink):
    from qanat_env_host.values import take_note

    words, read, write, clock = shared.words, os.read, os.write, time.perf_counter_ns
    actions, seen, usual = shared.actions, 0, 0  # usual: nanoseconds that the other side thinks between two calls
    while True:
        if usual < WORTH_SPINNING_NS:
            # A hint only: the byte in the pipe is what orders memory.
            until = clock() + min(LONGEST_SPIN_NS, 2 * usual + WAKING_NS)
            while words[8] == seen and clock() < until:
                pass
        if not read(source, 1):
            return
        begin = clock()
        seen = words[0]
        usual += (words[7] - usual) // 8
        command = words[1]
        try:
            if command == protocol.STEP:
                backend.step(actions, shared)
            else:
                call(backend, shared, command)
            words[17] = 0
        except BaseException as error:  # SystemExit of the user's code is an error like any other
            words[17] = 1
            shared.phase[0] = protocol.IN_CALL
            slot, cause = (error.slot, error.error) if isinstance(error, SlotError) else (-1, error)
            traceback.print_exception(cause)
            sys.stderr.flush()
            shared.set_error(slot, short(cause))
        words[28] = 0
        if (note := take_note()) is not None:
            shared.set_note(note)
        words[26] = min(clock() - begin, 0xFFFFFFFF)
        words[16] = seen
        write(sink, b"\1")
        words[27] = seen


def call(backend, shared, command):
    if command == protocol.RESET:
        backend.reset(shared.seeds, shared.which.astype(bool) if shared.some else None, shared)
    elif command == protocol.CLOSE:
        backend.close()
    elif command == protocol.RENDER:
        shared.set_picture(backend.render(shared.slot))
    else:
        raise Unsupported(f"command {command} is not for Python environments")


def short(error):
    """What went wrong and the innermost places, short enough for a message of 1,000 characters. The whole traceback
    is on standard error."""
    if isinstance(error, Unsupported):
        return str(error)
    what = "".join(traceback.format_exception_only(type(error), error)).strip()
    places = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    places = [place for place in places if os.sep + "qanat_env_host" + os.sep not in place]
    at = "; called from ".join(place[-110:] for place in reversed(places[-3:]))
    return f"{what[:500]} (at {at})" if at else what[:500]
