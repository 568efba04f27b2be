"""The two facts about a request that no exception shows: whether a byte of it went out, and that its time is up.

Exceptions are the same before and after the request: a proxy that hangs up is a proxy's error either way. So the
connection itself notes the moment before it sends the request's first byte. What goes before does not count: neither
TLS nor a CONNECT to a proxy is the request.

A read timeout begins again with each byte, so a server that sends one every few seconds holds a request without end. A
timer therefore shuts the connection down at the deadline: a read then finds its end, at whatever depth of TLS, proxy or
HTTP it happens to be.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from contextlib import suppress
from contextvars import ContextVar
from functools import cache
from types import TracebackType
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

_CURRENT: ContextVar[Watch | None] = ContextVar("watch", default=None)


class Watch:
    """Watches the connections that the entering thread uses for one request.

    Time is real here, for it is about a real socket: by no clock that anybody could set or stand in for. Looking up a
    name and connecting cannot be cut short, only found to be too late; both have limits of their own.

    Args:
        seconds: From now to the response's last byte.

    Attributes:
        sent: Whether a byte of the request may have left this machine.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.sent = False
        self._end = time.monotonic() + seconds
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._handles: list[socket.socket] = []

    def __enter__(self) -> Watch:
        self._timer.start()
        _CURRENT.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _CURRENT.set(None)
        self._timer.cancel()
        self._timer.join()
        for handle in self._handles:
            handle.close()

    @property
    def reached(self) -> bool:
        """Whether the deadline has come."""
        return time.monotonic() >= self._end

    def hold(self, connection: socket.socket) -> None:
        """Shut this connection down at the deadline."""
        # A handle of our own: TLS takes the socket's away from it, and HTTP lets go of the socket before the body.
        self._handles.append(socket.socket(fileno=os.dup(connection.fileno())))
        if self.reached:
            self._cut()

    def before_sending(self, connection: socket.socket) -> None:
        """The next byte is the request's first.

        Raises:
            TimeoutError: If it is too late for it.
        """
        if self.reached:
            raise TimeoutError
        if not self._handles:
            # Kept alive since an earlier request.
            self.hold(connection)
        self.sent = True

    def _cut(self) -> None:
        for handle in self._handles:
            with suppress(OSError):  # the other side was faster
                handle.shutdown(socket.SHUT_RDWR)


class _WatchedConnection(HTTPConnection):
    """Shows the watch its socket, from before TLS and a proxy's tunnel on, and when the request begins."""

    def _new_conn(self) -> socket.socket:
        made = super()._new_conn()
        if watch := _CURRENT.get():
            watch.hold(made)
        return made

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        if watch := _CURRENT.get():
            watch.before_sending(self.sock)
        super().endheaders(*args, **kwargs)


class WatchedAdapter(HTTPAdapter):
    """Makes connections that the :class:`Watch` in force sees, directly and through proxies."""

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """See :meth:`HTTPAdapter.get_connection_with_tls_context`."""
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _watched(pool.ConnectionCls)
        return pool


@cache
def _watched(connection: type[HTTPConnection]) -> type[HTTPConnection]:
    if issubclass(connection, _WatchedConnection):
        return connection
    return type(f"Watched{connection.__name__}", (_WatchedConnection, connection), {})


# It warns of headers that it cannot read, and quotes them as they came.
logging.getLogger("urllib3.connection").addFilter(lambda _: _CURRENT.get() is None)
