#!/usr/bin/env python3
"""75 s without a packet between a run's two machines, longer than the head waits: all go on within 5 s of its return."""

import pathlib
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "faults"))
import cut
import support


def main(program):
    slow = 0
    # Without the shards; and the actors alone, which the shards give up meanwhile.
    for there in (("replay", "actor"), ("actor",)):
        place = support.Place(str(pathlib.Path(program).resolve()), "cut")
        try:
            healed = cut.heals(place, 75, there)
        finally:
            place.end(keep=False)
        if healed is not None:
            print(f"{' and '.join(there)} cut off: all went on {healed:.1f} s after the network was back")
            slow += healed >= cut.HEALED_WITHIN
    return 1 if slow else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
