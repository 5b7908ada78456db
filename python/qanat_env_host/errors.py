"""What this package raises itself."""


class Unsupported(Exception):
    """A setting or an environment that cannot be hosted; the message is for the user, no traceback needed."""


class SlotError(Exception):
    """Wraps what one slot's environment raised (its __cause__)."""

    def __init__(self, slot):
        super().__init__(f"slot {slot}")
        self.slot = slot
