"""A request's last moment, whatever its server does.

A timeout of silence begins anew with each byte, so a server that sends one every few seconds, in a header or in the
body, holds a request for ever. Here a timer shuts the connection down at the deadline: whoever reads from it then
finds its end, at whatever depth of TLS, proxy or HTTP the reading happens to be.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError
from urllib3.poolmanager import PoolManager, ProxyManager

_CURRENT: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


class Deadline:
    """The deadline of one request, for the connections that the entering thread uses meanwhile.

    It is kept in real time, for it is about a real socket: by no clock that anybody could set or stand in for. Looking
    up a name and connecting cannot be cut short, only found to be too late; both have limits of their own.

    Args:
        seconds: From entering to the answer's last byte.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._end = 0.0
        self._handle: socket.socket | None = None
        self._reached = False
        self._may_have_sent: bool | None = None
        self._token: Token[Deadline | None] | None = None

    def __enter__(self) -> Deadline:
        self._end = time.monotonic() + self.seconds
        self._token = _CURRENT.set(self)
        self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._timer.cancel()
        if self._token is not None:
            _CURRENT.reset(self._token)
        with self._lock:
            self._forget()

    @property
    def reached(self) -> bool:
        """Whether it is too late; once true it stays so."""
        with self._lock:
            return self._too_late()

    @property
    def may_have_sent(self) -> bool | None:
        """Whether a connection stood in time to send the request over it; None if no socket has been seen so far."""
        with self._lock:
            return self._may_have_sent

    def watch(self, connection: socket.socket) -> None:
        """Shut this connection down at the deadline, instead of the one watched so far."""
        with self._lock:
            self._forget()
            # A handle of our own: TLS takes the socket's away from it, and HTTP lets go of the socket before the body.
            self._handle = socket.socket(fileno=os.dup(connection.fileno()))
            self._may_have_sent = False
            if self._reached:
                self._shut_down()

    def begin_sending(self) -> bool:
        """Say that the connection stands; False if that is too late, and nothing may be sent any more."""
        with self._lock:
            in_time = not self._too_late()
            self._may_have_sent = in_time
            return in_time

    def _cut(self) -> None:
        with self._lock:
            self._reached = True
            self._shut_down()

    def _too_late(self) -> bool:
        # The timer's thread may be late on a busy machine.
        self._reached = self._reached or time.monotonic() >= self._end
        return self._reached

    def _shut_down(self) -> None:
        if self._handle is not None:
            with suppress(OSError):  # the other side was faster
                self._handle.shutdown(socket.SHUT_RDWR)

    def _forget(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None


class _WatchedConnection(HTTPConnection):
    """Shows the deadline its socket, from before TLS and a proxy's tunnel on."""

    def _new_conn(self) -> socket.socket:
        made = super()._new_conn()
        if deadline := _CURRENT.get():
            deadline.watch(made)
        return made

    def connect(self) -> None:
        super().connect()
        self._begin_sending()

    def request(self, *args: Any, **kwargs: Any) -> None:
        deadline = _CURRENT.get()
        if deadline and self.sock is not None:
            deadline.watch(self.sock)
            self._begin_sending()
        super().request(*args, **kwargs)

    def _begin_sending(self) -> None:
        deadline = _CURRENT.get()
        if deadline and not deadline.begin_sending():
            raise ConnectTimeoutError(self, f"no connection within {deadline.seconds:g} s")


class _WatchedTlsConnection(_WatchedConnection, HTTPSConnection):
    """The same over TLS."""


class _WatchedPool(HTTPConnectionPool):
    ConnectionCls = _WatchedConnection


class _WatchedTlsPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedTlsConnection


class DeadlineAdapter(HTTPAdapter):
    """Makes connections that keep to the :class:`Deadline` in force, directly and through HTTP proxies."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """See :meth:`HTTPAdapter.init_poolmanager`."""
        super().init_poolmanager(*args, **kwargs)
        _use_watched(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> ProxyManager:
        """See :meth:`HTTPAdapter.proxy_manager_for`."""
        manager: ProxyManager = super().proxy_manager_for(proxy, **proxy_kwargs)
        # One for SOCKS brings connections of its own.
        if type(manager) is ProxyManager:
            _use_watched(manager)
        return manager


def _use_watched(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _WatchedPool, "https": _WatchedTlsPool}
