"""Signals that stop a command: at once, or between two steps of training."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import ClassVar

from genlab.errors import Interrupted

STOPPING_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU")
"""Ctrl-C; a batch system's end; a lost connection; a batch system's warnings before the end, and of time."""


class Stop:
    """A context manager that catches the signals that stop a command.

    SIGHUP stays ignored where it is, as under nohup. Contexts may be nested: an inner one, that of training,
    begins with a signal that the outer one, that of the command, has received; once it has ended, the outer
    one raises nothing anymore.

    Attributes:
        signal_name: the first signal received, or None.
    """

    _innermost: ClassVar[Stop | None] = None

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._raise_at_once = False
        self._remark = ""
        self._previous: dict[int, object] = {}
        self._outer: Stop | None = None

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            self._outer, Stop._innermost = Stop._innermost, self
            for name in STOPPING_SIGNALS:
                number = getattr(signal, name, None)
                ignored = name == "SIGHUP" and number and signal.getsignal(number) == signal.SIG_IGN
                if number is not None and not ignored:
                    self._previous[number] = signal.signal(number, self._handle)
            if self._outer is not None:
                self.signal_name = self._outer.signal_name
        return self

    def __exit__(self, *_: object) -> None:
        if self._outer is not None:
            self._outer._raise_at_once = False
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if Stop._innermost is self:
            Stop._innermost = self._outer

    @contextlib.contextmanager
    def at_once(self, remark: str = "") -> Iterator[None]:
        """Makes a signal raise Interrupted at once, for work that can simply be repeated.

        Args:
            remark: the end of the message, after the signal's name.

        Raises:
            Interrupted: a signal was received, now or before.
        """
        self._remark, self._raise_at_once = remark, True
        try:
            if self.signal_name:
                raise self._interrupted()
            yield
        finally:
            self._raise_at_once = False

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.signal_name = self.signal_name or signal.Signals(number).name
        if self._raise_at_once:
            self._raise_at_once = False  # a second signal must not interrupt the saving
            raise self._interrupted()

    def _interrupted(self) -> Interrupted:
        return Interrupted(f"stopped by {self.signal_name} {self._remark}".rstrip())
