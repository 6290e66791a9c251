"""Engines whose kernels take any shape at the same speed."""


class ByStreams:
    """A session for each number of streams, which `make_session(streams)` makes when it is first asked for."""

    def __init__(self):
        self.made = {}

    def session(self, streams, shape):
        del shape
        if streams not in self.made:
            self.made[streams] = self.make_session(streams)
        return self.made[streams]
