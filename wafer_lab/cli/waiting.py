"""A word to whoever waits at a terminal."""

import sys


def waiting(what: str) -> None:
    """Say what takes seconds, before it begins; nothing where nobody watches."""
    if sys.stderr.isatty():
        print(what, file=sys.stderr, flush=True)
