"""What a message may show of a text that came from outside.

All secrets are taken out of the whole text before it is cut: the other way around, part of one would survive. A secret
is known as it is, in the forms that libraries quote it in, in base64 and in hexadecimal. What is left is also read as a
URL, a page or JSON would be, twice over: if a secret shows there, none of the text is shown.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from urllib.parse import quote, quote_plus, unquote, urlsplit

SECRET_HEADERS = (
    "authorization",
    "elven-api-key",
    "elven-api-sign",
    "x-auth-key",
    "x-auth-signature",
    "x-balance-bridge-signature",
)
# Servers also quote part of a secret ("no such token abcdefghijkl..."): so much of one in a row counts as the secret.
_RUN_CHARS = 12
# A page of megabytes is not searched to its end for what may be shown of it.
_SEARCHED_CHARS = 20_000
_MAX_SHOWN_CHARS = 2000
# So much behind the cut is decoded as well: a secret that is cut is found as if it were whole.
_BEHIND_CHARS = 200
# The code of a very short secret may be part of anything.
_MIN_CODE_CHARS = 6
_NOT_SHOWN = "not shown: it quotes a credential"
_ESCAPE = re.compile(r"(?:\\+|%)(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2}))")


def credentials(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The values of headers that no message may show; of ``Bearer X`` it is X."""
    return tuple(
        value.removeprefix("Bearer ") for name, value in headers.items() if name.lower() in SECRET_HEADERS and value
    )


def url_secrets(url: str) -> tuple[str, ...]:
    """The passwords in a URL, in every form in which a driver or a proxy may quote them."""
    try:
        parts = urlsplit(url)
        _ = parts.port
        userinfo = parts.netloc.rpartition("@")[0]
        found = [userinfo.partition(":")[2] or userinfo]
    except ValueError:
        # A password that holds a slash, perhaps: each part of it can pass for a host or a port.
        userinfo = "".join(re.findall(r"(?s)://(.*)@", url))
        found = [userinfo, *re.split(r"[:/?#@]", userinfo)]
    found += re.findall(r"(?i)[?&][^=&]*pass[^=&]*=([^&#]*)", url)
    found += [unquote(each) for each in found]
    return tuple(filter(None, (*found, base64.b64encode(unquote(userinfo).encode()).decode())))


class Redactor:
    """Takes secrets and control characters out of texts.

    Args:
        secrets: As they are; their escaped and encoded forms are found as well.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._runs = frozenset[str]().union(*(_runs(secret) for secret in secrets if secret))
        self._sizes = sorted({len(run) for run in self._runs}, reverse=True)

    def clean(self, text: str, limit: int = 500) -> str:
        """The text on one line, without secrets, in at most so many characters (2000 at most) and an ellipsis."""
        limit = min(limit, _MAX_SHOWN_CHARS)
        more = len(text) > _SEARCHED_CHARS
        searched = _printable(text[:_SEARCHED_CHARS])
        # The last characters may be part of a secret that goes on behind them.
        shown = self._hide(searched[:-_RUN_CHARS] if more else searched, searched)[: limit + _BEHIND_CHARS]
        if self._runs and any(self._hidden_chars(view, at) for view in _views(shown) for at in range(len(view))):
            shown, more = _NOT_SHOWN, False
        return f"{shown[:limit]}…" if more or len(shown) > limit else shown

    def _hide(self, text: str, searched: str) -> str:
        shown: list[str] = []
        hidden_to = -1
        for at, char in enumerate(text):
            if hit := self._hidden_chars(searched, at):
                shown += ["***"] if at > hidden_to else []
                hidden_to = max(hidden_to, at + hit)
            elif at >= hidden_to:
                shown.append(char)
        return "".join(shown)

    def _hidden_chars(self, text: str, at: int) -> int:
        """How many characters from here on are a secret's."""
        return next((size for size in self._sizes if text[at : at + size].lower() in self._runs), 0)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    # Taken out and not replaced: a secret in UTF-16 is a secret again without its zeros.
    return "".join(char if char.isprintable() else " " for char in text if char.isprintable() or char.isspace())


def _views(text: str) -> set[str]:
    """What a text says to somebody who decodes it, once or twice."""
    views = {text}
    for _ in range(2):
        views |= {_printable(decode(view)) for view in views for decode in (unquote, html.unescape, _unescape)}
    return views - {text}


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1] or match[2], 16)), text)


@lru_cache(maxsize=64)
def _runs(secret: str) -> frozenset[str]:
    """Every run of characters, in small letters, that gives a secret away."""
    escaped = json.dumps(secret)[1:-1]
    forms = {secret, escaped, escaped.replace("/", "\\/"), html.escape(secret)}
    forms |= {quote(secret), quote(secret, safe=""), quote_plus(secret)}
    forms |= {code for code in _codes(secret.encode()) if len(code) >= _MIN_CODE_CHARS}
    return frozenset(
        form[at : at + _RUN_CHARS].lower() for form in forms for at in range(max(1, len(form) - _RUN_CHARS + 1))
    )


def _codes(secret: bytes) -> Iterator[str]:
    """Hexadecimal, and the part of its base64 that no text before or behind it changes."""
    yield secret.hex()
    for before in range(3):
        code = base64.b64encode(bytes(before) + secret)
        whole = code[before and before + 1 : 8 * (before + len(secret)) // 6].decode()
        yield whole
        yield whole.replace("+", "-").replace("/", "_")
