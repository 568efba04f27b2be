"""The two facts about a request that no exception tells: whether a byte of it went out, and that its time is up.

Exceptions are the same before and after the request: a proxy that hangs up is a proxy's error either way. So the
connection itself notes the moment before it hands the request's first byte to its socket. What goes before does not
count: neither TLS nor a CONNECT to a proxy is the request.

A timeout of silence begins again with each byte, so a server that sends one every few seconds, in a header or in the
body, holds a request without end. A timer therefore shuts the connection down at the deadline: a read then finds its
end, at whatever depth of TLS, proxy or HTTP it happens to be.
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
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.poolmanager import PoolManager, ProxyManager

_CURRENT: ContextVar[Watch | None] = ContextVar("watch", default=None)


class Watch:
    """Watches the connections that the entering thread uses for one request.

    Time is real here, for it is about a real socket: by no clock that anybody could set or stand in for. Looking up a
    name and connecting cannot be cut short, only found to be too late; both have limits of their own.

    Args:
        seconds: From now to the answer's last byte.

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
        """The next byte is one of the request's.

        Raises:
            TimeoutError: If it is too late for the first one.
        """
        if self.sent:
            return
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

    _connecting = False

    def _new_conn(self) -> socket.socket:
        made = super()._new_conn()
        if watch := _CURRENT.get():
            watch.hold(made)
        return made

    def connect(self) -> None:
        self._connecting = True
        try:
            super().connect()
        finally:
            self._connecting = False

    def send(self, data: Any) -> None:
        if not self._connecting:
            if self.sock is None:
                self.connect()
            if watch := _CURRENT.get():
                watch.before_sending(self.sock)
        super().send(data)


class WatchedAdapter(HTTPAdapter):
    """Makes connections that the :class:`Watch` in force sees, directly and through proxies."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """See :meth:`HTTPAdapter.init_poolmanager`."""
        super().init_poolmanager(*args, **kwargs)
        _watch_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> ProxyManager:
        """See :meth:`HTTPAdapter.proxy_manager_for`."""
        known = proxy in self.proxy_manager
        manager: ProxyManager = super().proxy_manager_for(proxy, **proxy_kwargs)
        if not known:
            _watch_pools(manager)
        return manager


def _watch_pools(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {scheme: _watched(pool) for scheme, pool in manager.pool_classes_by_scheme.items()}


@cache
def _watched(pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
    connection = type(f"Watched{pool.ConnectionCls.__name__}", (_WatchedConnection, pool.ConnectionCls), {})
    return type(f"Watched{pool.__name__}", (pool,), {"ConnectionCls": connection})


# It warns of headers that it cannot read, and quotes them as they came.
logging.getLogger("urllib3.connection").addFilter(lambda _: _CURRENT.get() is None)
