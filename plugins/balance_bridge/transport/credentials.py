"""Where an API is, and what opens it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Credentials:
    """A checked connection.

    Attributes:
        url: Scheme, host, port and path, without user, query or fragment.
        login: The key; empty if the API has none.
        password: The secret or token.
        name: What messages call it, such as ``connection 'ascendex_default'``; empty if they do not.
    """

    url: str
    login: str = field(repr=False)
    password: str = field(repr=False)
    name: str = ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no text may show."""
        return tuple(filter(None, (self.login, self.password)))
