"""What a server asks of those who ask: to name this machine, or to bring a token; and not to bring too much."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
LARGEST_BODY = 64 * 2**20


@dataclass(frozen=True)
class Rules:
    """What a guard asks for.

    Attributes:
        host: the address that is listened at. For one of this machine alone, the Host header must name it: a foreign
            page whose name was pointed here (DNS rebinding) is turned away.
        token: that every request must bring, as ``Authorization: Bearer`` or as the password of Basic; empty: none.
        largest: bytes of a request.
    """

    host: str = "127.0.0.1"
    token: str = ""
    largest: int = LARGEST_BODY

    @property
    def is_local(self) -> bool:
        return self.host in LOOPBACK


def rules_for(host: str, token: str | None) -> Rules:
    """The rules of an address; one that others reach asks for a token, which is drawn if none is given."""
    rules = Rules(host=host)
    return rules if rules.is_local and not token else Rules(host=host, token=token or secrets.token_urlsafe(16))
