"""How long MLflow's client may wait for a server."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_NAMES = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT")
_guard = threading.Lock()
_inside = 0  # blocks that are open, in all threads
_before: dict[str, str | None] = {}


@contextmanager
def brief_requests(seconds: int) -> Iterator[None]:
    """Let MLflow ask a server once for a few seconds, where it would go on for minutes.

    It reads its limits from the environment. The first of several blocks sets them, the last one puts back what was
    there.
    """
    global _inside
    with _guard:
        if _inside == 0:
            _before.update({name: os.environ.get(name) for name in _NAMES})
            os.environ.update(zip(_NAMES, ("0", str(seconds)), strict=True))
        _inside += 1
    try:
        yield
    finally:
        with _guard:
            _inside -= 1
            if _inside == 0:
                for name, value in _before.items():
                    if value is None:
                        os.environ.pop(name, None)
                    else:
                        os.environ[name] = value
