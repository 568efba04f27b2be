from __future__ import annotations

import base64
import gzip
import html
import ipaddress
import json
import logging
import re
import select
import socket
import ssl
import struct
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote, quote_plus, unquote

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3.exceptions import LocationParseError

from balance_bridge.clock import Clock
from balance_bridge.errors import ConnectionFailed, InvalidResponse, PermanentError, ResponseLost
from balance_bridge.transport import MAX_RESPONSE_BYTES, Redactor, Response, Transport
from balance_bridge.transport.watch import WatchedAdapter

SECRET = "not-a-real-token-0123456789"
HEADERS = {"authorization": f"Bearer {SECRET}", "x-auth-signature": SECRET}

TLS_HELLO = b"\x16\x03"

Talk = Callable[[socket.socket, bytes], None]


class Server:
    """A socket on the loopback interface that reads one request per connection and then does as it is told."""

    def __init__(self, talk: Talk, context: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self._talk = talk
        self._context = context
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(5)
                try:
                    self._response(connection)
                except OSError:
                    continue

    def _response(self, plain: socket.socket) -> None:
        wrapped = self._context.wrap_socket(plain, server_side=True) if self._context else None
        with wrapped or plain as connection:
            request = _read(connection)
            if request.startswith(TLS_HELLO):
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                return
            self.requests.append(request)
            self._talk(connection, request)
            if self._talk is silent:
                self._closing.wait(5)


def _read(connection: socket.socket) -> bytes:
    request = connection.recv(65536)
    while not request.startswith(TLS_HELLO) and len(request) < _whole(request):
        part = connection.recv(65536)
        if not part:
            raise ConnectionResetError("the client hung up")
        request += part
    return request


def _whole(request: bytes) -> int:
    head, end, _ = request.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: ([0-9]+)", head)
    return len(head) + len(end) + (int(length[1]) if length else 0) if end else len(request) + 1


def silent(_: socket.socket, __: bytes) -> None:
    """Neither responses nor hangs up."""


def hang_up(_: socket.socket, __: bytes) -> None:
    """Hangs up without a byte."""


def says(data: bytes, *, status: str = "200 OK", length: int | None = None, **headers: str) -> Talk:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(data) if length is None else length}", "Connection: close"]
    head = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in named.items())])

    def talk(connection: socket.socket, _: bytes) -> None:
        connection.sendall(head.encode() + b"\r\n\r\n" + data)

    return talk


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def make(talk: Talk, context: ssl.SSLContext | None = None) -> Server:
        servers.append(Server(talk, context))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def send(url: str, method: str = "GET", **options: Any) -> Response:
    made = Transport()
    return made.send(method, url, headers=HEADERS, **options)


def refuse(response: Response) -> NoReturn:
    """As those do who read a body that is not what they expect."""
    raise InvalidResponse(f"{response.request}: {response.describe_body()}")


def test_a_whole_response_is_given_whatever_its_status(serve: Callable[..., Server]) -> None:
    for status in ("200 OK", "400 Bad Request", "404 Not Found", "429 Too Many Requests", "500 Oops"):
        server = serve(says(b'{"a": 1.10}', status=status, Content_Type="application/json", X_Own="Yes"))
        response = send(f"{server.url}/x", params={"date": "2026-11-20", "q": "a b&c"})
        assert response.status == int(status[:3])
        assert response.body == b'{"a": 1.10}'
        assert response.headers["content-type"] == "application/json"
        assert response.headers["x-own"] == "Yes"
        assert response.request == f"GET {server.url}/x?date=2026-11-20&q=a+b%26c"


def test_what_goes_out_is_what_was_handed_in(serve: Callable[..., Server]) -> None:
    server = serve(says(b"{}"))
    send(f"{server.url}/x", method="POST", body=b"[1.10]")
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /x HTTP/1.1\r\n")
    assert b"authorization: Bearer " + SECRET.encode() in head
    assert body == b"[1.10]"


def test_a_response_knows_when_its_request_went_out_and_when_it_was_whole(serve: Callable[..., Server]) -> None:
    server, ticks = serve(says(b"{}")), iter([100.0, 103.5])
    made = Transport(clock=Clock(wall=lambda: next(ticks)))
    response = made.send("GET", server.url, headers={})
    assert (response.sent_at, response.ended_at) == (100.0, 103.5)


def test_a_compressed_response_is_given_unpacked(serve: Callable[..., Server]) -> None:
    server = serve(says(gzip.compress(b'{"a": 1}'), Content_Encoding="gzip"))
    assert send(server.url).body == b'{"a": 1}'


def test_nothing_listens_means_that_nothing_was_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConnectionFailed, match=rf"GET http://127.0.0.1:{port}/x\?a=b: no connection\. .*refused"):
        send(f"http://127.0.0.1:{port}/x", params={"a": "b"})


def test_a_name_that_does_not_resolve_means_that_nothing_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ConnectionFailed, match=r"no-such-host\.invalid"):
        send("http://no-such-host.invalid/x")


def test_a_connection_that_takes_too_long_means_that_nothing_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: Any, **__: Any) -> Any:
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket.socket, "connect", slow)
    with pytest.raises(ConnectionFailed, match="no connection within 10 s"):
        send("http://127.0.0.1:9/x")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_server_that_hangs_up_without_a_response_loses_it(serve: Callable[..., Server], method: str) -> None:
    server = serve(hang_up)
    with pytest.raises(ResponseLost, match="the connection was lost before the whole response"):
        send(server.url, method=method)
    assert len(server.requests) == 1, "a request is never repeated here"


def test_a_silent_server_loses_the_response(serve: Callable[..., Server]) -> None:
    server = serve(silent)
    with pytest.raises(ResponseLost, match=r"no response within 0\.2 s"):
        send(server.url, timeout_s=0.2)
    assert len(server.requests) == 1


def test_a_server_that_falls_silent_in_the_body_loses_the_response(serve: Callable[..., Server]) -> None:
    gate = threading.Event()

    def half(connection: socket.socket, request: bytes) -> None:
        says(b'{"a": ', length=1000)(connection, request)
        gate.wait(5)

    server = serve(half)
    with pytest.raises(ResponseLost):
        send(server.url, timeout_s=0.2)
    gate.set()


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[1,2,",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[1,2,\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 15\r\n\r\nthis is no gzip",
        b"SSH-2.0-OpenSSH_9\r\n\r\n",
    ],
    ids=["cut", "cut in chunks", "damaged", "not HTTP"],
)
def test_a_response_that_is_not_whole_is_lost_and_not_given(serve: Callable[..., Server], response: bytes) -> None:
    with pytest.raises(ResponseLost, match="before the whole response"):
        send(serve(lambda connection, _: connection.sendall(response)).url)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_a_redirect_is_a_response_and_not_followed(serve: Callable[..., Server], status: str) -> None:
    other = serve(says(b"stolen"))
    server = serve(says(b"", status=status, Location=f"{other.url}/elsewhere"))
    assert send(server.url).status == int(status[:3])
    assert other.requests == []


def test_the_netrc_file_does_not_replace_our_credentials(
    serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\ndefault login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server = serve(says(b"{}"))
    send(server.url)
    assert f"authorization: Bearer {SECRET}".encode() in server.requests[0]
    assert b"Basic" not in server.requests[0]


def test_no_cookie_is_carried_from_a_response_to_the_next_request(serve: Callable[..., Server]) -> None:
    server = serve(says(b"{}", Set_Cookie="session=1"))
    made = Transport()
    made.send("GET", server.url, headers={})
    made.send("GET", server.url, headers={})
    assert b"session=1" not in server.requests[1]


def test_a_response_larger_than_the_request_allows_is_refused(serve: Callable[..., Server]) -> None:
    assert len(send(serve(says(b"x" * 1000)).url, max_bytes=1000).body) == 1000
    with pytest.raises(InvalidResponse, match="larger than 1000 bytes"):
        send(serve(says(b"x" * 1001)).url, max_bytes=1000)


BOMB_BYTES = 140_000_000


@pytest.fixture(scope="module")
def bomb() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([*(packer.compress(bytes(1_000_000)) for _ in range(BOMB_BYTES // 1_000_000)), packer.flush()])


def in_chunks(status: str, body: bytes, *headers: str) -> Talk:
    head = "\r\n".join([f"HTTP/1.1 {status}", "Connection: close", "Transfer-Encoding: chunked", *headers])

    def talk(connection: socket.socket, _: bytes) -> None:
        connection.sendall(head.encode() + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))

    return talk


@pytest.mark.parametrize("status", ["200 OK", "302 Found", "500 Oops"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_small_response_that_unpacks_to_a_huge_one_is_refused_in_bounded_memory(
    serve: Callable[..., Server], bomb: bytes, status: str, chunked: bool
) -> None:
    headers = ("Location: /elsewhere", "Content-Encoding: gzip")
    says_it = says(bomb, status=status, Location="/elsewhere", Content_Encoding="gzip")
    server = serve(in_chunks(status, bomb, *headers) if chunked else says_it)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidResponse, match=f"larger than {MAX_RESPONSE_BYTES} bytes"):
            send(server.url)
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_RESPONSE_BYTES < BOMB_BYTES / 2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "location", ["http://[::1/x", "//[", "http://a:b:c/", "\u00ff://\x01", "http://" + "a" * 5000, ""]
)
def test_a_malformed_location_is_a_response_like_any_other(serve: Callable[..., Server], location: str) -> None:
    head = b"HTTP/1.1 302 Found\r\nContent-Length: 2\r\nLocation: " + location.encode("latin-1") + b"\r\n\r\n{}"
    response = send(serve(lambda connection, _: connection.sendall(head)).url, method="POST", body=b"[]")
    assert (response.status, response.body, response.headers["location"]) == (302, b"{}", location)


@pytest.mark.parametrize(
    "url",
    [
        *("nonsense", "ftp://host/x", "http://", "http:///x", "http://[::1/x", "http://127.0.0.1:99999/x", ""),
        *("http://a..b/x", f"http://{'a' * 70}.test/x", "http://.test/x", "http://*.test/x"),
    ],
)
def test_a_malformed_address_is_a_permanent_error(url: str) -> None:
    with pytest.raises(PermanentError, match=r"this URL cannot be used.*Check the host"):
        send(url)


@pytest.mark.parametrize("value", [f"{SECRET}\n", f" {SECRET}", f"{SECRET}\r\nx: y", f"{SECRET}\u00e9", "\u0442", ""])
def test_a_header_that_cannot_be_sent_is_refused_without_its_value(serve: Callable[..., Server], value: str) -> None:
    server = serve(says(b"{}"))
    made = Transport()
    with pytest.raises(PermanentError, match="the header authorization cannot be sent") as caught:
        made.send("POST", server.url, headers={"authorization": value})
    assert caught.value.__cause__ is None
    assert SECRET not in str(caught.value)
    assert server.requests == []


def test_no_message_and_no_log_holds_a_header_s_value(
    serve: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    urls = [serve(talk).url for talk in (says(b"<html>"), hang_up, silent, says(b"{", length=9))]
    for url in [*urls, "http://127.0.0.1:1", "nonsense", "http://a..b"]:
        try:
            refuse(send(url, timeout_s=0.1))
        except (ConnectionFailed, ResponseLost, PermanentError) as error:
            chain: BaseException | None = error
            while chain is not None:
                assert SECRET not in f"{chain!r}"
                chain = chain.__cause__ or chain.__context__
        else:
            pytest.fail(f"{url} gave a response")
    assert SECRET not in caplog.text


def test_credentials_that_a_server_quotes_back_are_hidden(serve: Callable[..., Server]) -> None:
    for before in range(0, 600, 7):
        quoted = response(b"x" * before + SECRET.encode() + b"y" * 600, secrets=(SECRET,))
        assert SECRET[:12] not in quoted.describe_body()
    assert response(secrets=(SECRET,)).clean(f"no such key: {SECRET}!") == "no such key: ***!"
    assert len(response().clean("x" * 10_000)) == 501

    found = send(serve(says(f"<html>{SECRET} is wrong</html>".encode())).url)
    with pytest.raises(InvalidResponse, match=r"<html>\*\*\* is wrong") as caught:
        refuse(found)
    assert SECRET not in f"{caught.value!r} {found!r}"


# --- TLS ---


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 and its key, made for this run and signed by nobody."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(made.public_bytes(encoding) + key.private_bytes(encoding, form, serialization.NoEncryption()))
    return path


@pytest.fixture
def context(certificate: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate)
    return made


def test_an_untrusted_certificate_is_a_permanent_error(serve: Callable[..., Server], context: ssl.SSLContext) -> None:
    server = serve(says(b"{}"), context)
    with pytest.raises(PermanentError, match="the server's TLS certificate is not trusted"):
        send(server.url)
    assert server.requests == []


def test_the_environment_s_certificates_are_trusted(
    serve: Callable[..., Server], context: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert send(serve(says(b'{"a": 1}'), context).url).body == b'{"a": 1}'


def test_a_handshake_that_fails_means_that_nothing_was_sent(serve: Callable[..., Server]) -> None:
    server = serve(hang_up)
    with pytest.raises(ConnectionFailed, match=r"no connection\. SSL"):
        send(server.url.replace("http:", "https:"), timeout_s=1)


def test_tls_that_breaks_after_the_request_loses_the_response(
    serve: Callable[..., Server], context: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(connection: Any, _: bytes) -> None:
        # Past the encryption: a record that no peer can decrypt, as a broken middlebox would send.
        with socket.socket(fileno=socket.dup(connection.fileno())) as plain:
            plain.sendall(b"\x17\x03\x03\x00\x20" + b"\x00" * 32)

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    server = serve(break_off, context)
    with pytest.raises(ResponseLost, match=r"the connection was lost before the whole response\. SSL"):
        send(server.url, method="POST", body=b"[]", timeout_s=2)
    assert len(server.requests) == 1


# --- the deadline ---

DEADLINE_S = 0.25
OK = b"HTTP/1.1 200 OK\r\n"


def drips(at_once: bytes, then: bytes, pause_s: float = 0.03, count: int = 300) -> Talk:
    """Sends the first bytes together, and so many others one by one, over and over, until nobody listens."""

    def talk(connection: socket.socket, _: bytes) -> None:
        connection.sendall(at_once)
        for number in range(count):
            time.sleep(pause_s)
            connection.sendall(then[number % len(then) :][:1])

    return talk


DRIPS = {
    "the status line": drips(b"", b"HTTP/1.1 200 " + b"O" * 1000),
    "a header line": drips(OK, b"X-Long: " + b"x" * 1000),
    "header lines": drips(OK, b"a: b\r\n"),
    "preliminary responses": drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.002, 5000),
    "a body of stated length": drips(OK + b"Content-Length: 1000\r\n\r\n", b" "),
    "a body in chunks": drips(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "a compressed body": drips(OK + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(bytes(range(256)) * 4)),
    "a body without end": drips(OK + b"Content-Type: application/json\r\n\r\n[]", b" "),
    "a body without end after which it hangs up": drips(OK + b"Connection: close\r\n\r\n", b" "),
    "what is no HTTP": drips(b"", b"x"),
}


@contextmanager
def ended_in_time(error: type[Exception], match: str) -> Iterator[None]:
    began = time.monotonic()
    with pytest.raises(error, match=match):
        yield
    assert DEADLINE_S - 0.05 < time.monotonic() - began < DEADLINE_S + 1


@pytest.mark.parametrize("what", DRIPS)
def test_a_response_that_only_drips_is_lost_at_the_deadline(serve: Callable[..., Server], what: str) -> None:
    server = serve(DRIPS[what])
    with ended_in_time(ResponseLost, rf"POST {server.url}/: no whole response within 0\.25 s"):
        send(server.url, "POST", body=b"[]", deadline_s=DEADLINE_S)
    assert len(server.requests) == 1


@pytest.mark.parametrize("what", DRIPS)
def test_the_deadline_holds_under_tls(
    serve: Callable[..., Server],
    context: ssl.SSLContext,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    server = serve(DRIPS[what], context)
    with ended_in_time(ResponseLost, r"no whole response within 0\.25 s"):
        send(server.url, deadline_s=DEADLINE_S)
    assert len(server.requests) == 1


def test_the_deadline_holds_on_a_connection_that_was_kept(serve: Callable[..., Server]) -> None:
    def once_well(connection: socket.socket, request: bytes) -> None:
        connection.sendall(OK + b"Content-Length: 2\r\n\r\n{}")
        server.requests.append(_read(connection))
        DRIPS["header lines"](connection, request)

    server = serve(once_well)
    made = Transport()
    assert made.send("GET", server.url, headers={}, deadline_s=DEADLINE_S).body == b"{}"
    with ended_in_time(ResponseLost, "no whole response within"):
        made.send("GET", server.url, headers={}, deadline_s=DEADLINE_S)
    assert len(server.requests) == 2


def test_a_deadline_that_was_kept_does_nothing_to_the_next_request(serve: Callable[..., Server]) -> None:
    def twice(connection: socket.socket, _: bytes) -> None:
        connection.sendall(OK + b"Content-Length: 2\r\n\r\n{}")
        server.requests.append(_read(connection))
        time.sleep(0.4)
        connection.sendall(OK + b"Content-Length: 2\r\nConnection: close\r\n\r\n[]")

    server = serve(twice)
    made = Transport()
    assert made.send("GET", server.url, headers={}, deadline_s=0.2).body == b"{}"
    assert made.send("GET", server.url, headers={}, deadline_s=5).body == b"[]"
    assert len(server.requests) == 2


def test_no_thread_outlives_its_request(serve: Callable[..., Server]) -> None:
    server = serve(says(b"{}"))
    before = threading.active_count()
    for _ in range(5):
        send(server.url)
    assert threading.active_count() <= before + 1


def test_a_handshake_that_does_not_end_means_that_nothing_was_sent() -> None:
    # The system itself connects; nobody says a word.
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        ended_in_time(ConnectionFailed, r"no connection within 0\.25 s"),
    ):
        send(f"https://127.0.0.1:{mute.getsockname()[1]}", deadline_s=DEADLINE_S)


def test_after_a_name_that_took_too_long_nothing_is_sent(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = socket.getaddrinfo

    def slow(*args: Any, **named: Any) -> Any:
        time.sleep(DEADLINE_S + 0.1)
        return look_up(*args, **named)

    server = serve(says(b"{}"))
    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with ended_in_time(ConnectionFailed, r"no connection within 0\.25 s"):
        send(server.url, "POST", body=b"[]", deadline_s=DEADLINE_S)
    assert server.requests == []


def test_a_session_of_the_caller_s_own_is_held_to_the_deadline_at_the_end(serve: Callable[..., Server]) -> None:
    server = serve(drips(OK + b"Content-Length: 8\r\n\r\n", b" ", 0.1, 8))
    with requests.Session() as session, pytest.raises(ResponseLost, match=r"no whole response within 0\.25 s"):
        Transport(session).send("GET", server.url, headers={}, deadline_s=DEADLINE_S)
    with requests.Session() as session:
        response = Transport(session).send("GET", serve(says(b"{}")).url, headers={})
    assert response.body == b"{}"


# --- whether a byte of the request went out ---


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Invalid IPv6 URL"),
        LocationParseError("//["),
        RecursionError("too deep"),
        MemoryError("too much"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no text"),
        KeyError("x"),
        OSError("broken"),
        requests.exceptions.InvalidURL("x"),
        requests.exceptions.ProxyError("x"),
        requests.exceptions.ConnectTimeout("x"),
        ssl.SSLCertVerificationError("CERTIFICATE_VERIFY_FAILED"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_exception_after_the_first_byte_is_a_lost_response(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    server = serve(says(b"{}"))
    monkeypatch.setattr(requests.adapters.HTTPAdapter, "build_response", fail)
    with pytest.raises(
        ResponseLost, match=rf"the connection was lost before the whole response\. {type(error).__name__}: "
    ):
        send(server.url, "POST", body=b"[]")
    assert len(server.requests) == 1


@pytest.mark.parametrize("part", [b"POST ", b"[1]"], ids=["head", "body"])
def test_a_request_that_could_not_be_sent_to_its_end_is_a_lost_response(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, part: bytes
) -> None:
    def sendall(self: socket.socket, data: bytes) -> None:
        if data.startswith(part):
            raise OSError("no buffer space")
        self.send(data)

    monkeypatch.setattr(socket.socket, "sendall", sendall)
    with pytest.raises(ResponseLost, match="no buffer space"):
        send(serve(hang_up).url, "POST", body=b"[1]")


def test_what_goes_through_an_adapter_that_nobody_watches_counts_as_sent(closed_port: int) -> None:
    url = f"http://127.0.0.1:{closed_port}"
    with requests.Session() as session:
        with pytest.raises(ResponseLost):
            Transport(session).send("POST", url, headers={}, body=b"[]")
        session.mount("http://", WatchedAdapter(max_retries=0))
        with pytest.raises(ConnectionFailed):
            Transport(session).send("POST", url, headers={}, body=b"[]")


def test_an_adapter_may_say_itself_that_nothing_went_out() -> None:
    class Unplugged(requests.adapters.BaseAdapter):
        def send(self, *_: Any, **__: Any) -> Any:
            raise ConnectionFailed("no cable")

        def close(self) -> None:
            pass

    with requests.Session() as session:
        session.mount("http://", Unplugged())
        with pytest.raises(ConnectionFailed, match="no cable"):
            Transport(session).send("GET", "http://a.test", headers={})


# --- proxies ---

CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def reset(connection: socket.socket, _: bytes) -> None:
    """Hangs up so that the peer sees a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def garbage(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"no HTTP at all\r\n\r\n")


ENDS: dict[str, Talk] = {"reset": reset, "hang up": hang_up, "garbage": garbage}


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def by(url: str) -> None:
        for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, url)

    return by


def forwards(origin: Server, then: Talk) -> Talk:
    """A proxy that carries a request out, and then ends otherwise than with its response."""

    def talk(connection: socket.socket, request: bytes) -> None:
        with socket.create_connection(("127.0.0.1", origin.port)) as onward:
            onward.sendall(request)
            assert onward.recv(1000)
        then(connection, request)

    return talk


def tunnels(origin: Server, then: Talk) -> Talk:
    """A proxy that lets TLS through until the origin has the request, and then ends the connection."""

    def talk(connection: socket.socket, request: bytes) -> None:
        connection.sendall(CONNECTED)
        with socket.create_connection(("127.0.0.1", origin.port)) as onward:
            while not origin.requests:
                for source in select.select([connection, onward], [], [], 0.05)[0]:
                    target = onward if source is connection else connection
                    target.sendall(source.recv(65536))
        then(connection, request)

    return talk


@pytest.mark.parametrize("end", ENDS)
def test_a_proxy_that_fails_after_it_forwarded_a_request_loses_the_response(
    serve: Callable[..., Server], proxied: Callable[[str], None], end: str
) -> None:
    origin = serve(says(b"{}"))
    proxy = serve(forwards(origin, ENDS[end]))
    proxied(proxy.url)
    with pytest.raises(ResponseLost, match="the connection was lost before the whole response"):
        send("http://ledger.invalid/x", "POST", body=b"[1]")
    assert [request.partition(b"\r\n\r\n")[2] for request in origin.requests] == [b"[1]"]
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("end", ENDS)
def test_a_tunnel_that_breaks_after_the_request_loses_the_response(
    serve: Callable[..., Server],
    proxied: Callable[[str], None],
    context: ssl.SSLContext,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: str,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    origin = serve(silent, context)
    proxy = serve(tunnels(origin, ENDS[end]))
    proxied(proxy.url)
    with pytest.raises(ResponseLost, match="the connection was lost before the whole response"):
        send("https://127.0.0.1:9/x", "POST", body=b"[1]")
    assert len(origin.requests) == 1
    assert len(proxy.requests) == 1


@pytest.mark.parametrize(
    "talk",
    [*ENDS.values(), says(b"", status="403 Forbidden"), says(b"", status="502 CERTIFICATE_VERIFY_FAILED")],
    ids=[*ENDS, "403", "502"],
)
def test_a_proxy_that_refuses_the_tunnel_means_that_nothing_was_sent(
    serve: Callable[..., Server], proxied: Callable[[str], None], talk: Talk
) -> None:
    proxy = serve(talk)
    proxied(proxy.url)
    with pytest.raises(ConnectionFailed, match="no connection"):
        send("https://ledger.invalid/x", "POST", body=b"[]")
    assert proxy.requests[0].startswith(b"CONNECT ledger.invalid:443 ")


def test_tls_that_fails_inside_the_tunnel_means_that_nothing_was_sent(
    serve: Callable[..., Server], proxied: Callable[[str], None]
) -> None:
    proxy = serve(lambda connection, _: connection.sendall(CONNECTED))
    proxied(proxy.url)
    with pytest.raises(ConnectionFailed, match="no connection"):
        send("https://ledger.invalid/x", "POST", body=b"[]")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_refuses_the_connection_means_that_nothing_was_sent(
    proxied: Callable[[str], None], closed_port: int, scheme: str
) -> None:
    proxied(f"http://127.0.0.1:{closed_port}")
    with pytest.raises(ConnectionFailed, match=r"no connection\. .*refused"):
        send(f"{scheme}://ledger.invalid/x", "POST", body=b"[]")


def test_a_proxy_s_own_refusal_is_a_response(serve: Callable[..., Server], proxied: Callable[[str], None]) -> None:
    proxied(serve(says(b"no way", status="502 Bad Gateway")).url)
    assert send("http://ledger.invalid/x", "POST", body=b"[]").status == 502


def test_the_deadline_holds_through_a_proxy(serve: Callable[..., Server], proxied: Callable[[str], None]) -> None:
    server = serve(DRIPS["header lines"])
    proxied(server.url)
    with ended_in_time(ResponseLost, "no whole response within"):
        send("http://exchange.invalid/x", deadline_s=DEADLINE_S)
    assert server.requests[0].startswith(b"GET http://exchange.invalid/x HTTP/1.1\r\n")


def test_a_proxy_that_does_not_get_through_in_time_means_that_nothing_was_sent(
    serve: Callable[..., Server], proxied: Callable[[str], None]
) -> None:
    server = serve(DRIPS["header lines"])
    proxied(server.url)
    with ended_in_time(ConnectionFailed, r"no connection within 0\.25 s"):
        send("https://exchange.invalid/x", deadline_s=DEADLINE_S)
    assert server.requests[0].startswith(b"CONNECT exchange.invalid:443 ")


def test_the_deadline_holds_under_tls_through_a_proxy(
    serve: Callable[..., Server],
    proxied: Callable[[str], None],
    context: ssl.SSLContext,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def tunnel(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with context.wrap_socket(connection, server_side=True) as inner:
            server.requests.append(_read(inner))
            DRIPS["a body in chunks"](inner, b"")

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    server = serve(tunnel)
    proxied(server.url)
    with ended_in_time(ResponseLost, "no whole response within"):
        send("https://127.0.0.1:9/x", deadline_s=DEADLINE_S)
    assert server.requests[1].startswith(b"GET /x HTTP/1.1\r\n")


# --- secrets ---

# As a key or a signature may look that is quoted escaped or encoded; long enough for any limit to cut through it.
KEY = "Zm9v+YmFy/cXV4==" + "".join(f"{number:x}" for number in range(1000, 1200))
PASSWORD = "pass-not-real-0123456789"


def leaked(secret: str, text: str) -> str:
    """The first dozen characters of a secret in a row that a text shows, or nothing."""
    runs = (secret[at : at + 12] for at in range(max(1, len(secret) - 11)))
    return next((run for run in runs if run.lower() in text.lower()), "")


FORMS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "in capitals": str.upper,
    "in JSON": lambda text: json.dumps(text)[1:-1],
    "in JSON by PHP": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "in a path": quote,
    "in a query": quote_plus,
    "percent-encoded": lambda text: quote(text, safe=""),
    "in HTML": html.escape,
    "in part": lambda text: text[:20],
    "every byte percent-encoded": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "every byte percent-encoded, in small letters": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "percent-encoded twice": lambda text: "".join(f"%25{byte:02X}" for byte in text.encode()),
    "in decimal entities": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "in hexadecimal entities": lambda text: "".join(f"&#x{ord(char):X};" for char in text),
    "in entities, in HTML again": lambda text: html.escape("".join(f"&#{ord(char):05};" for char in text)),
    "in JSON's escapes": lambda text: "".join(f"\\u{ord(char):04x}" for char in text),
    "in JSON's escapes, in JSON again": lambda text: "".join(f"\\\\u{ord(char):04X}" for char in text),
    "in a query, in HTML": lambda text: "".join(f"&#37;{byte:02X}" for byte in text.encode()),
    "in hexadecimal": lambda text: text.encode().hex(),
    **{
        f"in base64, {before} characters behind another text": lambda text, before=before: base64.b64encode(
            b"user:token"[:before] + text.encode() + b"!"
        ).decode()
        for before in (0, 1, 2, 7)
    },
    "in base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "in base64, percent-encoded": lambda text: quote(base64.b64encode(text.encode()).decode(), safe=""),
}

QUOTED: dict[str, Callable[[bytes], bytes]] = {
    "the status line": lambda quoted: b"HTTP/9.9 " + quoted + b"\r\n\r\n",
    "no HTTP": lambda quoted: quoted + b"\r\n\r\n",
    "a chunk's size": lambda quoted: OK + b"Transfer-Encoding: chunked\r\n\r\n" + quoted + b"\r\n",
    "a chunk's size, after one": lambda quoted: OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n" + quoted + b"\r\n",
    "a header line": lambda quoted: OK + b"Content-Length: 1\r\n" + quoted + b"\r\n\r\n{",
    "the encoding": lambda quoted: (
        OK + b"Connection: close\r\nContent-Encoding: gzip, " + quoted + b"\r\n\r\nthis is no gzip"
    ),
    "the kind": lambda quoted: OK + b"Content-Length: 1\r\nContent-Type: " + quoted + b"\r\n\r\n{",
    "a cookie": lambda quoted: OK + b"Content-Length: 1\r\nSet-Cookie: " + quoted + b"=1;expires=x\r\n\r\n{",
    "the body": lambda quoted: OK + b"Connection: close\r\n\r\n" + quoted,
    "a body in UTF-16": lambda quoted: OK + b"Connection: close\r\n\r\n" + quoted.decode().encode("utf-16"),
    "a body, behind much else": lambda quoted: OK + b"Connection: close\r\n\r\n" + b"x" * 150 + quoted,
}


NOTE = "not shown: it quotes a credential"
NOT_SHOWN = {"a header line", "a chunk's size, after one", "the encoding", "a cookie"}
# What comes after a semicolon is no part of a chunk's size, and hexadecimal is a size.
CUT_IN_A_SIZE = {form for form, quoted in FORMS.items() if ";" in quoted("x" * 30)} | {"in hexadecimal"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("where", QUOTED)
def test_a_secret_that_a_server_quotes_reaches_neither_message_nor_log(
    serve: Callable[..., Server], caplog: pytest.LogCaptureFixture, where: str, form: str
) -> None:
    caplog.set_level(logging.DEBUG)
    said = QUOTED[where](FORMS[form](KEY).encode())
    server = serve(lambda connection, _: connection.sendall(said))
    made = Transport()
    with pytest.raises((ResponseLost, InvalidResponse)) as caught:
        refuse(made.send("POST", server.url, headers={}, body=b"[]", secrets=[KEY]))
    cut = where in NOT_SHOWN or (where == "a chunk's size" and form in CUT_IN_A_SIZE)
    assert "***" in str(caught.value) or NOTE in str(caught.value) or cut
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    for secret in {KEY, FORMS[form](KEY)}:
        assert not leaked(secret, f"{caught.value} {caplog.text}")


@settings(deadline=None)
@given(
    st.text('abcdefghijABCDEFGHIJ0123456789+/=-_"&\\', min_size=12, max_size=40),
    st.sampled_from(sorted(FORMS)),
    st.integers(0, 60),
    st.integers(0, 80),
)
def test_no_cut_lets_part_of_a_secret_through(secret: str, form: str, before: int, limit: int) -> None:
    quoted = FORMS[form](secret)
    shown = Redactor([secret]).clean("." * before + quoted + "." * 60, limit)
    assert len(shown) <= limit + 1
    assert not leaked(quoted, shown)
    if not NOTE.startswith(shown.rstrip("…")):
        assert shown[:before] == "." * min(before, limit) + "…" * (before > limit)


def test_a_page_full_of_secrets_is_described_at_once_and_shows_none() -> None:
    for before in range(13):
        page = response(b"." * before + KEY.encode() * 20_000, secrets=(KEY,))
        began = time.monotonic()
        assert page.describe_body().endswith("." * before + "***…'")
        assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "piece", ["%25", "&amp;", "&#", "&#0", "&#9", "&#x", "\\", "\\u00", "\\u005c", "%5c", "a%b&#", "***"]
)
def test_a_page_that_is_costly_to_decode_is_described_at_once(piece: str) -> None:
    page = response((piece * 1_000_000)[:1_000_000].encode(), secrets=(KEY, SECRET, PASSWORD))
    began = time.monotonic()
    page.describe_body()
    assert time.monotonic() - began < 2


@settings(deadline=None)
@given(st.text(max_size=80))
def test_a_text_from_outside_is_shown_on_one_line_and_without_control_characters(text: str) -> None:
    assert Redactor(()).clean(text).isprintable()


def test_what_a_terminal_would_act_on_is_taken_out() -> None:
    assert (
        response().clean("a\r\nERROR forged\x1b[31m red \u202eleft\u2028next\x00")
        == "a  ERROR forged[31m red left next"
    )


def test_a_text_without_secrets_stays_as_it_is() -> None:
    said = r"O003: asset BTC of account ASCENDEX-CASH-BTC: der Saldo ist ung\u00fcltig (100 %25 &lt; 1.5) &#8364;"
    assert response(secrets=(KEY, SECRET)).clean(said) == said


@pytest.mark.parametrize("limit", [3, 100, 3000])
def test_a_text_that_is_not_shown_is_replaced_by_a_note_within_the_limit(limit: int) -> None:
    shown = response(secrets=(KEY,)).clean(f"no such key: {FORMS['in decimal entities'](KEY)}", limit)
    assert shown == (NOTE if limit >= len(NOTE) else f"{NOTE[:limit]}…")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "userinfo",
    [f"me:{PASSWORD}", f"me:{quote('a/b@c:' + PASSWORD, safe='')}", f"me:a/{PASSWORD}", f"me:{PASSWORD}/b@c", PASSWORD],
)
def test_a_proxy_s_password_never_appears(
    serve: Callable[..., Server],
    proxied: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    scheme: str,
    userinfo: str,
) -> None:
    def quotes(connection: socket.socket, request: bytes) -> None:
        sent = request.partition(b"Proxy-Authorization: ")[2].partition(b"\r\n")[0]
        connection.sendall(
            b"HTTP/1.1 " + (b"407 " if scheme == "https" else b"") + sent + userinfo.encode() + b"\r\n\r\n"
        )

    caplog.set_level(logging.DEBUG)
    proxied(f"http://{userinfo}@127.0.0.1:{serve(quotes).port}")
    with pytest.raises((ConnectionFailed, ResponseLost, PermanentError)) as caught:
        send(f"{scheme}://ledger.invalid/x", "POST", body=b"[]")
    for secret in (PASSWORD, base64.b64encode(unquote(userinfo).encode()).decode()):
        assert not leaked(secret, f"{caught.value!r} {caplog.text}")
    assert caught.value.__context__ is None


@pytest.mark.parametrize("host", ["127.0.0.1:1", "[::1", "127.0.0.1:port", "a..b"])
@pytest.mark.parametrize("userinfo", [f"me:{PASSWORD}", f"me:a/{PASSWORD}", PASSWORD])
def test_a_password_in_the_url_never_appears(host: str, userinfo: str) -> None:
    with pytest.raises((ConnectionFailed, PermanentError)) as caught:
        send(f"http://{userinfo}@{host}/x")
    assert not leaked(PASSWORD, f"{caught.value!r}")


def test_a_response_shows_nothing_from_outside_in_its_repr(serve: Callable[..., Server]) -> None:
    url = serve(says(SECRET.encode(), X_Own=SECRET)).url.replace("http://", f"http://me:{PASSWORD}@")
    found = send(url)
    assert not leaked(SECRET, repr(found))
    assert not leaked(PASSWORD, repr(found))
    assert found.request.startswith("GET http://me:***@127.0.0.1:")


# --- what a response says ---


def response(
    body: bytes = b"", sent_at: float = 1000.0, ended_at: float = 1002.0, secrets: tuple[str, ...] = (), **headers: str
) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response("GET http://x.test/y?z=1", 200, named, body, sent_at, ended_at, secrets)


@settings(deadline=None)
@given(st.integers(-100_000, 100_000), st.integers(0, 30))
def test_the_skew_is_known_to_within_the_request_s_own_time(skew: int, took: int) -> None:
    # The server writes its header at any moment of the request.
    sent = 1_790_000_000
    for moment in range(took + 1):
        date = datetime.fromtimestamp(sent + moment + skew, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        found = response(sent_at=sent, ended_at=sent + took, date=date).clock_skew_s()
        assert found is not None
        assert abs(found - skew) <= took / 2 + 0.5


@pytest.mark.parametrize(
    "date", ["", "yesterday", "0", "Mon, 32 Jan 2026 00:00:00 GMT", "Mon, 01 Jan 99999999999 00:00 GMT"]
)
def test_a_malformed_date_gives_no_skew(date: str) -> None:
    assert response(date=date).clock_skew_s() is None
    assert response().clock_skew_s() is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("Thu, 01 Jan 1970 00:17:22 GMT", 40.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        *(
            (nonsense, None)
            for nonsense in ("", "soon", "-1", "1.5", "1e3", "\u00b2", "\u0663", "9" * 400, "inf", "NaN")
        ),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
    ],
)
def test_a_retry_after_header_is_read_or_ignored(value: str, seconds: float | None) -> None:
    assert response(retry_after=value).retry_after_s() == seconds
    assert response().retry_after_s() is None


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_no_header_can_break_the_reading(value: str) -> None:
    wait_s = response(retry_after=value).retry_after_s()
    assert wait_s is None or wait_s >= 0
    response(date=value).clock_skew_s()


def test_a_look_at_a_body_is_short_and_names_its_kind() -> None:
    assert (
        response(b"x" * 10_000, content_type="text/html").describe_body()
        == f"10000 bytes of text/html: {'x' * 200 + '…'!r}"
    )
    assert response(b"\xff").describe_body() == "1 bytes of no content type: '\ufffd'"
    assert response(b"").describe_body() == "the body is empty"
