"""What stands between the package's transport and the three APIs, and errs.

Each fault is raised as ``requests`` would raise it, or answered as a server or a proxy would, so that the package's own
reading of it takes part.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests
import urllib3.exceptions as broken
from requests.adapters import BaseAdapter
from urllib3.connection import HTTPConnection

from balance_bridge.errors import AnswerLost
from balance_bridge.sandbox.app import Apis
from balance_bridge.sandbox.wire import Call, Reply
from doubles import FakeClock

UNSENT = ("connection refused", "no such host", "connect timeout")
# Each strikes before or after the server has acted.
LOST = ("reset", "timeout", "cut", "drip", "500", "503", "html", "charset", "half a body")
REFUSED = ("401", "403", "404", "307", "429", "429 soon", "429 absurd", "429 date", "429 nonsense")
RESULTS = ("missing", "doubled", "reordered", "foreign", "no results")
# What only an API with results, and with numbers, can do; another one fails after the fact.
AT_AMLYZE = ("500 burnt", *(f"results {name}" for name in RESULTS))
FAULTS = (
    *UNSENT,
    *(f"{name} {when}" for name in LOST for when in ("before", "after")),
    *REFUSED,
    "200 error",
    *AT_AMLYZE,
)
RETRY_AFTER = {"429 soon": "2", "429 absurd": "999999999", "429 nonsense": "soon"}


@dataclass
class Sent:
    """The rows of one request to a destination, and the run that made it."""

    api: str
    run: int
    rows: list[dict[str, str]]
    acted: bool


class Events(Protocol):
    """What the wire needs of the world around it."""

    chance: random.Random
    clock: FakeClock
    run: int
    secrets: set[str]
    sent: list[Sent]
    struck: Counter[str]

    def step(self) -> None:
        """An effect is about to happen, or has just happened."""

    def sending(self, note: Sent) -> None:
        """Rows are about to go out."""

    def fault_of(self, api: str) -> str:
        """The fault that strikes the next request; an empty text if none does."""


class Wire(BaseAdapter):
    """What stands between the package's transport and the three APIs."""

    def __init__(self, events: Events, apis: Apis) -> None:
        super().__init__()
        self._sim = events
        self._apis = apis

    def close(self) -> None:
        """Nothing is open."""

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:  # type: ignore[override]
        sim, url = self._sim, urlsplit(request.url or "")
        api = (url.hostname or "").removesuffix(".example")
        headers = {name.lower(): str(value) for name, value in request.headers.items()}
        sim.secrets |= {
            headers[name].removeprefix("Bearer ")
            for name in ("x-auth-signature", "elven-api-sign", "authorization")
            if name in headers
        }
        body = request.body if isinstance(request.body, bytes) else b""
        call = Call(request.method or "", url.path, url.query, headers, body)
        sim.step()
        sim.clock.now += 0.2
        fault = self._fitting(sim.fault_of(api), api, body)
        sim.struck[fault] += bool(fault)
        note = Sent(api, sim.run, rows_of(api, body), acted=False)
        if note.rows:
            sim.sent.append(note)
            sim.sending(note)
        try:
            return self._answer(request, call, api, fault, note)
        finally:
            sim.clock.now += 0.2

    def _fitting(self, fault: str, api: str, body: bytes) -> str:
        """A fault as this API can have it."""
        if fault in AT_AMLYZE:
            return fault if api == "amlyze" else "500 after"
        if fault == "200 error" and api == "elven" and self._was_taken(body):
            # A refusal judges the content: the server cannot refuse now what it took before.
            return "500 before"
        return fault

    def _was_taken(self, body: bytes) -> bool:
        taken = {(kept.identity, kept.datetime, kept.text) for kept in self._apis.elven.imports}
        return any(elven_row(row) in taken for row in rows_of("elven", body))

    def _answer(
        self, request: requests.PreparedRequest, call: Call, api: str, fault: str, note: Sent
    ) -> requests.Response:
        sim = self._sim
        if fault in UNSENT:
            raise unsent(fault, request)
        reply: Reply | None = None
        if not fault or fault.endswith(" after") or fault.startswith("results"):
            reply = getattr(self._apis, api).answer(call)
            note.acted = True
        if fault == "500 burnt":
            self._apis.amlyze.used |= {row["communicationNumber"] for row in note.rows}
        sim.step()
        kind = fault.removesuffix(" before").removesuffix(" after").removesuffix(" burnt")
        if kind in ("reset", "timeout", "cut", "drip"):
            sim.clock.now += 30 if kind in ("timeout", "drip") else 0
            raise lost(kind)
        return self._response(request, call, api, kind, reply)

    def _response(
        self, request: requests.PreparedRequest, call: Call, api: str, kind: str, reply: Reply | None
    ) -> requests.Response:
        # Servers quote back what they were sent, and what is secret in it.
        quoted = " ".join(f"{name}: {value}" for name, value in call.headers.items())
        whole = reply.body() if reply else b'{"status": "ok"}'
        status, body, kept = reply.status if reply else 200, whole, {"content-type": "application/json"}
        if kind[:3] in ("307", "401", "403", "404", "429", "500", "503"):
            status = int(kind[:3])
            body = json.dumps({"status": status, "error": f"refused {quoted}", "message": quoted}).encode()
            kept |= {"location": f"http://user:{quoted.rpartition(' ')[2]}@elsewhere.example/"} if status == 307 else {}
        if kind == "429 date":
            kept["retry-after"] = formatdate(self._sim.clock.now + self._sim.chance.choice((-5, 3, 10**6)), usegmt=True)
        elif kind in RETRY_AFTER:
            kept["retry-after"] = RETRY_AFTER[kind]
        elif kind == "html":
            body, kept = f"<html>please log in {quoted}</html>".encode(), {"content-type": "text/html"}
        elif kind == "charset":
            body = whole.decode().encode("utf-16")
        elif kind == "half a body":
            body = whole[: len(whole) // 2]
        elif kind == "200 error":
            body = refusal(api, self._sim.chance, quoted)
        elif kind.startswith("results"):
            body = altered(kind.removeprefix("results "), whole, self._sim.chance)
        return response(request, status, body, kept)


def rows_of(api: str, body: bytes) -> list[dict[str, str]]:
    """The rows of a request's body, numbers by their digits."""
    if api == "exchange" or not body:
        return []
    document = json.loads(body, parse_float=str, parse_int=str)
    found: list[dict[str, str]] = document if isinstance(document, list) else document["accountBalances"]
    return found


def elven_row(row: dict[str, str]) -> tuple[str, str, str]:
    identity = f"assetID:{row['assetID']}" if "assetID" in row else f"symbol:{row['symbol']}"
    return identity, row["datetime"], row["balance"]


def unsent(fault: str, request: requests.PreparedRequest) -> Exception:
    if fault == "connect timeout":
        return requests.ConnectTimeout("no connection", request=request)
    connection = HTTPConnection("somewhere.example")
    reason = (
        broken.NameResolutionError("somewhere.example", connection, OSError("Name or service not known"))  # type: ignore[arg-type]
        if fault == "no such host"
        else broken.NewConnectionError(connection, "connection refused")
    )
    return requests.ConnectionError(broken.MaxRetryError(None, "/", reason), request=request)  # type: ignore[arg-type]


def lost(kind: str) -> Exception:
    if kind == "timeout":
        return requests.ReadTimeout("no answer")
    if kind == "drip":
        # The deadline is one of real time; what it comes to is this.
        return AnswerLost("POST: no whole answer within 60 s")
    reason = ConnectionResetError("reset by peer") if kind == "reset" else broken.IncompleteRead(3, 900)
    error = requests.ConnectionError if kind == "reset" else requests.exceptions.ChunkedEncodingError
    return error(broken.ProtocolError("Connection broken", reason))


def refusal(api: str, chance: random.Random, quoted: str) -> bytes:
    """A refusal with status 200."""
    document: dict[str, Any] = {
        "exchange": {"code": 100001, "reason": "INVALID_HTTP_INPUT", "message": quoted},
        "elven": {"status": "failed", "data": {"code": chance.choice((19734, 10001)), "message": f"no: {quoted}"}},
        "amlyze": {"resultType": "REQUEST_REJECTED", "errorCode": "O001", "errorDescription": quoted},
    }[api]
    return json.dumps(document).encode()


def altered(how: str, whole: bytes, chance: random.Random) -> bytes:
    """Amlyze's answer with its results altered."""
    document = json.loads(whole)
    results = document.get("results") or []
    if how == "missing" and results:
        results = chance.sample(results, chance.randrange(len(results)))
    elif how == "doubled":
        results = results + results
    elif how == "reordered":
        results = chance.sample(results, len(results))
    elif how == "foreign":
        results = [*results, {"communicationNumber": "somebody-else-1", "resultType": "REQUEST_ACCEPTED"}, None, 7]
    elif how == "no results":
        results = []
    return json.dumps({**document, "results": results}).encode()


def response(request: requests.PreparedRequest, status: int, body: bytes, headers: dict[str, str]) -> requests.Response:
    made = requests.Response()
    made.status_code, made.url, made.request = status, request.url or "", request
    made.headers.update(headers)
    made._content = body
    made._content_consumed = True
    return made
