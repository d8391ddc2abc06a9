"""Signals that stop a run: they set a flag that the training loop reads between steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from genlab.errors import Interrupted

_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")  # Ctrl-C; a batch system's end; its warning before the end


class Stop:
    """A context manager that catches SIGINT, SIGTERM and SIGUSR1.

    Attributes:
        signal_name: the first signal received, or None.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._raise_at_once = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
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
        """Makes a signal raise Interrupted at once, for work that can simply be repeated.

        Raises:
            Interrupted: a signal was received, now or before.
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
            self._raise_at_once = False  # a second signal must not interrupt the saving
            raise Interrupted(self.signal_name)
