"""What this package raises itself."""


class Unsupported(Exception):
    """A setting or an environment that cannot be hosted; the message is for the user, no traceback needed."""


class SlotError(Exception):
    """What went wrong in one slot."""

    def __init__(self, slot, error):
        super().__init__(f"slot {slot}: {error!r}")
        self.slot, self.error = slot, error
