"""Orderly ends: SIGINT and SIGTERM let the current steps finish and a checkpoint be written."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from trip_mm.errors import TripError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class RunInterrupted(TripError):  # noqa: N818
    """A signal ended the run in an orderly way; it can be continued.

    Attributes:
        signal_number: the signal.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class Interruption:
    """Remembers the first signal that asked the run to end.

    Attributes:
        signal_number: that signal, None as long as there was none.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None

    @property
    def requested(self) -> bool:
        """Whether the run is to end."""
        return self.signal_number is not None

    def _handle(self, signal_number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.signal_number = signal_number

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Catches the signals for the duration of a block; a second one ends the program at once.

        Outside the main thread Python allows no signal handlers; the caller's hold there.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
