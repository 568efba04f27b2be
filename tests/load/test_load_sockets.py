"""The same endings over real sockets, on this machine."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

import delivery_kit as kit
from balance_bridge.errors import ConnectionFailed, OutcomeUnknown
from balance_bridge.transport import Transport
from doubles import MemoryStore


class CutShort(BaseHTTPRequestHandler):
    """Promises more than it sends, and hangs up."""

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "1000")
        self.end_headers()
        self.wfile.write(b'{"results": [')
        self.close_connection = True

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server():
    with HTTPServer(("127.0.0.1", 0), CutShort) as served:
        served.bodies = []
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        served.shutdown()
        thread.join()


@pytest.fixture
def transport():
    return Transport()


def test_a_server_that_hangs_up_in_the_middle_leaves_the_outcome_unknown(server, transport):
    store = MemoryStore()
    destination = kit.amlyze(transport, url=f"http://127.0.0.1:{server.server_port}")
    with pytest.raises(OutcomeUnknown, match="the connection was lost"):
        kit.run(destination, store, [kit.balance()])
    assert kit.statuses(store) == {"BTC": "unknown"}
    assert b'"value":1.5' in server.bodies[0]


def test_a_refused_connection_means_that_nothing_was_sent(transport):
    # A port that was free a moment ago.
    with HTTPServer(("127.0.0.1", 0), CutShort) as taken:
        port = taken.server_port
    store = MemoryStore()
    with pytest.raises(ConnectionFailed):
        kit.run(kit.elven(transport, url=f"http://127.0.0.1:{port}"), store, [kit.balance()])
    assert kit.statuses(store, "elven") == {"BTC": "planned"}
