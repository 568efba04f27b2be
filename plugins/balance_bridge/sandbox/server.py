"""The sandbox as a running server: in a thread for tests and the demo, in the foreground for the command line."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from threading import Thread
from types import TracebackType
from typing import Any

import uvicorn

from balance_bridge.sandbox.app import Apis
from balance_bridge.sandbox.fixtures import CREDENTIALS, accounts_yaml, connections

__all__ = ["CREDENTIALS", "Sandbox", "accounts_yaml", "connections", "serve"]

START_LIMIT_S = 15.0
STOP_LIMIT_S = 15.0
REFRESH_S = 0.5


class Sandbox(Apis):
    """The APIs on a local port, served by a thread. A context manager.

    Args:
        port: TCP port on 127.0.0.1; 0 takes a free one.
        world: What :class:`Apis` takes.

    Raises:
        OSError: The port is taken.
        RuntimeError: The server did not start.
    """

    def __init__(self, port: int = 0, **world: Any) -> None:
        super().__init__(**world)
        self._socket = socket.create_server(("127.0.0.1", port))
        # Each answer goes out in two pieces; the second would wait 40 ms for the acknowledgement of the first.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                self.application(),
                loop="asyncio",
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                date_header=False,
                server_header=False,
                timeout_graceful_shutdown=2,
            )
        )
        self._thread = Thread(target=self._server.run, args=([self._socket],), name="sandbox", daemon=True)
        self._thread.start()
        end = time.monotonic() + START_LIMIT_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"the sandbox did not start at {self.url} within {START_LIMIT_S:g} s")
            time.sleep(0.005)

    def stop(self) -> None:
        """Stop serving, and wait until every socket is closed. Can be called again.

        Raises:
            RuntimeError: The server's thread did not end.
        """
        self._server.should_exit = True
        self._thread.join(STOP_LIMIT_S)
        self._socket.close()
        if self._thread.is_alive():
            raise RuntimeError(f"the sandbox at {self.url} did not stop within {STOP_LIMIT_S:g} s")

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def lines(self) -> list[str]:
        """What was delivered so far, one line per destination, account and day."""
        with self.lock:
            counts = self.counts()
        return [
            f"{key}: " + ", ".join(f"{count} {state}" for state, count in states.items())
            for key, states in counts.items()
        ]


def serve(port: int, seed: int, show: bool) -> int:
    """Run the sandbox in the foreground until Ctrl-C.

    Args:
        port: TCP port on 127.0.0.1; 0 takes a free one.
        seed: Determines the world.
        show: Whether to print a line whenever something is delivered.

    Returns:
        The exit code: 0 when stopped, 1 if the port is not available.
    """
    try:
        sandbox = Sandbox(port, seed=seed)
    except OSError as error:
        print(f"port {port} is not available ({error.strerror}): choose another one", file=sys.stderr)
        return 1
    with sandbox, suppress(KeyboardInterrupt):
        print("\n".join(_instructions(sandbox.url)), flush=True)
        shown: list[str] = []
        while True:
            time.sleep(REFRESH_S)
            lines = sandbox.lines() if show else []
            for line in lines:
                if line not in shown:
                    print(line, flush=True)
            shown = lines
    print("sandbox stopped", flush=True)
    return 0


def _instructions(url: str) -> Iterator[str]:
    yield f"sandbox of AscendEX, Elven and Amlyze at {url} (all credentials are fakes)"
    for conn_id, fields in connections(url).items():
        yield f"AIRFLOW_CONN_{conn_id.upper()}='{json.dumps(fields)}'"
    yield f"status: {url}/sandbox/status"
    yield "stop with Ctrl-C"
