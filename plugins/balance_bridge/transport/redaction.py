"""What a message may show of a text that came from outside.

All secrets are collected first; then they are taken out of the whole text; only then is it cut. In any other order
part of a secret survives.

A secret is known as it is, in the forms that libraries quote it in, in base64 and in hexadecimal. What is then left is
also read as a URL, a page or JSON would be, twice over: if a secret shows, none of the text is shown.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
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
_MOST_SHOWN_CHARS = 2000
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
        forms = {form.lower() for secret in secrets if secret for form in _forms(secret)}
        self._runs = {form[at : at + _RUN_CHARS] for form in forms for at in range(max(1, len(form) - _RUN_CHARS + 1))}
        self._sizes = sorted({len(run) for run in self._runs}, reverse=True)

    def clean(self, text: str, limit: int = 500) -> str:
        """The text on one line, without secrets, in at most so many characters (2000 at most) and an ellipsis."""
        limit = min(limit, _MOST_SHOWN_CHARS)
        more = len(text) > _SEARCHED_CHARS
        shown = self._without_secrets(_printable(text[:_SEARCHED_CHARS]), limit + _BEHIND_CHARS, more=more)
        if self._runs and any(self._quotes(view) for view in _views(shown)):
            shown, more = _NOT_SHOWN, False
        return f"{shown[:limit]}…" if more or len(shown) > limit else shown

    def _without_secrets(self, text: str, limit: int, *, more: bool) -> str:
        shown: list[str] = []
        hidden_to = -1
        # The last characters may be part of a secret that goes on behind them.
        for at, char in enumerate(text[:-_RUN_CHARS] if more else text):
            if hit := self._longest(text, at):
                if at > hidden_to:
                    shown.append("***")
                hidden_to = max(hidden_to, at + hit)
            elif at >= hidden_to:
                shown.append(char)
            if len(shown) > limit:
                break
        return "".join(shown)

    def _quotes(self, text: str) -> bool:
        return any(self._longest(text, at) for at in range(len(text)))

    def _longest(self, text: str, at: int) -> int:
        for size in self._sizes:
            if text[at : at + size].lower() in self._runs:
                return size
        return 0


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


def _forms(secret: str) -> set[str]:
    escaped = json.dumps(secret)[1:-1]
    encoded = (quote(secret), quote(secret, safe=""), quote_plus(secret), html.escape(secret))
    codes = [form for form in _codes(secret.encode()) if len(form) >= _MIN_CODE_CHARS]
    return {secret, escaped, escaped.replace("/", "\\/"), *encoded, *codes}


def _codes(secret: bytes) -> Iterator[str]:
    """Hexadecimal, and the part of its base64 that no text before or behind it changes."""
    yield secret.hex()
    for before in range(3):
        code = base64.b64encode(bytes(before) + secret)
        whole = code[before and before + 1 : 8 * (before + len(secret)) // 6].decode()
        yield whole
        yield whole.replace("+", "-").replace("/", "_")
