"""Signals that ask a run to stop, turned into a flag that the training loop reads between steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from genlab.errors import Interrupted

_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")  # Ctrl-C, a batch system's end, its warning before the end


class Stop:
    """Catches SIGINT, SIGTERM and SIGUSR1 while it is entered.

    Attributes:
        signal_name: of the first signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._raise_at_once = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers in no other
            for name in _SIGNALS:
                if hasattr(signal, name):
                    number = getattr(signal, name)
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within it a signal raises Interrupted instead of waiting: for work that can simply be done again.

        Raises:
            Interrupted: a signal came, now or before.
        """
        self._raise_at_once = True
        try:
            if self.signal_name:
                raise Interrupted(self.signal_name)
            yield
        finally:
            self._raise_at_once = False

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.signal_name = self.signal_name or signal.Signals(number).name
        if self._raise_at_once:
            self._raise_at_once = False  # a second signal must not cut off the saving
            raise Interrupted(self.signal_name)
