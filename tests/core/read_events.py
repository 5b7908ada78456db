"""Prints what the tensorboard package reads in a directory of event files: a JSON list of [tag, step, value]."""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

accumulator = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
accumulator.Reload()
print(json.dumps([[tag, point.step, point.value]
                  for tag in sorted(accumulator.Tags()["scalars"])
                  for point in accumulator.Scalars(tag)]))
