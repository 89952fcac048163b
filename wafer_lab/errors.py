"""The one exception for mistakes a user can make and mend."""


class UserError(Exception):
    """Something the user can put right: a missing file, a typo, an incompatible choice.

    Every entry point prints its message alone, without a traceback, and exits with status 2. The message
    therefore says what is wrong and what to do about it.
    """
