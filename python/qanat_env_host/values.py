"""Values that environments return, checked one by one: what is harmless is taken with a note, the rest is refused by
name, with what was seen and what was wanted."""

import numpy as np

NUMBERS = (int, float, np.integer, np.floating, np.bool_)

_noted = set()
_notes = []


def note(field, text):
    """Says once a field what was taken although it was not as it should be."""
    if field not in _noted:
        _noted.add(field)
        _notes.append(f"{field} {text}")


def take_note():
    return _notes.pop(0) if _notes else None


def shown(value):
    """A value in an error's text, cut short."""
    if isinstance(value, np.ndarray) and value.ndim > 0:
        return f"an array of {value.dtype} {value.shape}"
    if isinstance(value, (tuple, list, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{repr(value)[:80]} of type {type(value).__name__}"


def numbers_of(value, name):
    """The value as an array of numbers."""
    try:
        array = np.asarray(value)
    except Exception:  # numpy's own text names neither the field nor what was wanted
        raise TypeError(f"{name} is {shown(value)}, which makes no array; numbers of one shape wanted") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} is {shown(value)}, numbers wanted")
    return array


def two_of(result):
    """(observation, info) as reset() must return them."""
    if not isinstance(result, tuple) or len(result) != 2:
        seen = f"a tuple of {len(result)}" if isinstance(result, tuple) else type(result).__name__
        raise TypeError(f"reset() returned {seen}, wanted observation, info")
    if not isinstance(result[1], dict):
        raise TypeError(f"reset() returned info {shown(result[1])}, wanted a dict")
    return result


def five_of(result):
    """(observation, reward, terminated, truncated, info) as step() must return them."""
    if not isinstance(result, tuple) or len(result) != 5:
        seen = f"{len(result)} values" if isinstance(result, tuple) else shown(result)
        raise TypeError(f"step() returned {seen}, wanted observation, reward, terminated, truncated, info")
    return result


def reward_of(value):
    if isinstance(value, NUMBERS):
        return value
    number = one_number(value)
    if number is None:
        raise TypeError(f"step() returned reward {shown(value)}, wanted one number")
    note("reward", f"is {shown(value)}, its one number is taken")
    return number


def flag_of(name, value):
    if isinstance(value, (bool, np.bool_)):
        return value
    number = one_number(value)
    if number is None or number not in (0, 1):
        raise TypeError(f"step() returned {name} {shown(value)}, wanted bool")
    note(name, f"is {shown(value)}, taken as {bool(number)}")
    return bool(number)


def one_number(value):
    """The only number of an array or a number; None when there is not one."""
    try:
        array = np.asarray(value)
    except Exception:
        return None
    return array.reshape(-1)[0] if array.size == 1 and array.dtype.kind in "biuf" else None


def row_of(name, values, slots):
    """A vector class's values [slots]."""
    array = numbers_of(values, f"step(): {name}")
    if array.shape != (slots,):
        raise TypeError(f"step() returned {name} of shape {array.shape}, wanted ({slots},)")
    return array


def flags_of(name, values, slots):
    array = row_of(name, values, slots)
    if array.dtype.kind != "b":
        wrong = (array != 0) & (array != 1)
        if wrong.any():
            slot = int(np.argmax(wrong))
            raise TypeError(f"step() returned {name} {array[slot]} in slot {slot}, wanted bool")
        note(name, f"is an array of {array.dtype}, 1 taken as True")
    return array


def part(value, path):
    """What stands at a path of keys and indices in an observation."""
    for depth, key in enumerate(path):
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            has = f" with {', '.join(map(repr, value))}" if isinstance(value, dict) else ""
            raise TypeError(f"observation{path_text(path[:depth])} is {shown(value)}{has}, wanted a part "
                            f"{key!r}") from None
    return value


def path_text(path):
    return "".join(f"[{key!r}]" for key in path)
