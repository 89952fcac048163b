"""The exceptions for what a user can put right, and for being told to stop."""


class UserError(Exception):
    """Something the user can put right: a missing file, a typo, an incompatible choice.

    Every entry point prints its message alone, without a traceback, and exits with status 2. The message
    therefore says what is wrong and what to do about it.
    """


class DivergedError(UserError):
    """The training loss became NaN or infinite; another learning rate, loss or precision may well train."""


class OutOfMemoryError(UserError):
    """The run needs more memory than the device has; a smaller one may well train."""


class Terminated(SystemExit):
    """The process was told to end by a signal; its exit status is 128 + the signal's number, as in a shell."""

    def __init__(self, signum: int):
        super().__init__(128 + signum)
        self.signum = signum
