"""Calls to a store that are made in the background, and kept while it does not answer."""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

RETRY_SECONDS = 30
_MOST_VALUES = 100_000  # some 30 MB


class Item(NamedTuple):
    """One call to make.

    Attributes:
        call: Without arguments.
        values: How many values it records; 0 for a file.
        file: Name of the file it sends; empty for values.
    """

    call: Callable[[], Any]
    values: int = 0
    file: str = ""


class _Lane:
    """Calls that are made in order: where one fails, those behind it wait as well."""

    def __init__(self) -> None:
        self.waiting: deque[Item] = deque()
        self.retry_at = 0.0  # on the monotonic clock; 0 while the store answers
        self.given_up = False

    def due(self, closing: bool) -> bool:
        if closing:
            return bool(self.waiting) and not self.given_up
        return bool(self.waiting) and time.monotonic() >= self.retry_at


class Outbox:
    """A thread that makes calls one after the other, so that whoever hands them in never waits.

    Values and files have a lane each: a store of files that is full does not hold up the values. A lane whose call
    failed is tried again after 30 s, and once more at the end. While nothing is sent, the newest 100,000 values
    are kept.

    Args:
        session: Entered round every call.
        failed: Told the error when a lane stops being able to send; called in the thread.
    """

    def __init__(
        self, session: Callable[[], AbstractContextManager[None]], failed: Callable[[Exception], None]
    ) -> None:
        self._session, self._failed = session, failed
        self._values, self._files = _Lane(), _Lane()
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        self.mistake: Exception | None = None  # a call that the store refuses as malformed, now and later
        self.dropped = 0  # values that there was no room for

    def put(self, item: Item) -> None:
        """Hand a call in."""
        with self._changed:
            lane = self._files if item.file else self._values
            lane.waiting.append(item)
            while sum(one.values for one in self._values.waiting) > _MOST_VALUES:
                self.dropped += self._values.waiting.popleft().values
            if self._thread is None:
                self._thread = threading.Thread(target=self._send, name="outbox", daemon=True)
                self._thread.start()
            self._changed.notify()

    def finish(self, seconds: float) -> list[Item]:
        """Send what is waiting, for at most so long; a lane that fails once more is given up.

        Returns:
            What was not sent.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread:
            self._thread.join(seconds)
        with self._changed:
            left = [*self._values.waiting, *self._files.waiting]
            self._values.waiting.clear()  # a thread that still hangs in a call ends with it
            self._files.waiting.clear()
        return left

    def _send(self) -> None:
        while (lane := self._next()) is not None:
            item = lane.waiting[0]
            try:
                with self._session():
                    item.call()
            except Exception as error:  # MLflow lets SQLAlchemy's, requests' and its own exceptions through
                if getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE":
                    self.mistake = error  # ours to mend, not the store's
                    self._done(lane, item)
                    continue
                if not lane.retry_at:
                    self._failed(error)
                lane.retry_at, lane.given_up = time.monotonic() + RETRY_SECONDS, self._closing
            else:
                lane.retry_at = 0.0
                self._done(lane, item)

    def _next(self) -> _Lane | None:
        """The lane to send from, once one is due; None at the end."""
        with self._changed:
            while True:
                for lane in (self._values, self._files):
                    if lane.due(self._closing):
                        return lane
                if self._closing:
                    return None
                times = [lane.retry_at for lane in (self._values, self._files) if lane.waiting]
                self._changed.wait(max(0.0, min(times) - time.monotonic()) if times else None)

    def _done(self, lane: _Lane, item: Item) -> None:
        with self._changed:
            if lane.waiting and lane.waiting[0] is item:  # else it was dropped meanwhile
                lane.waiting.popleft()
