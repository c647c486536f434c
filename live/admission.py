"""
Who may come in: tokens, origins, numbers of sockets and sessions, and when to ask for patience.

Rules:

- a token comes in the `Authorization` header, as a subprotocol (`simsched, bearer.TOKEN`) or in
  the first frame; one in the address is refused, because addresses end up in logs;
- tokens are compared in constant time, and never kept: only their digests are;
- an address that shows wrong tokens too often is shut out until the minute is over;
- from a share of a bound on (`backpressure_at`) clients are asked to slow down, before anything
  is refused.

What a bound is comes from the settings; what was refused and why is told by `refusals`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from simsched.errors import ConfigError
from simsched.live import refusals
from simsched.live.refusals import Refusal
from simsched.live.settings import Settings
from simsched.messages import Backpressure, BackpressureAction
from simsched.units import MINUTE

SUBPROTOCOL: Final = "simsched"
BEARER: Final = "bearer."
"""What a subprotocol that carries a token begins with."""

QUERY_NAMES: Final = frozenset({"token", "access_token", "auth", "authorization", "bearer", "key"})
"""Names under which people put tokens into addresses."""

ADDRESSES_MAX: Final = 10_000
"""Addresses whose wrong tokens are counted; the oldest give way."""

RESUME_AFTER_MS: Final = 1_000
"""What clients are told to wait."""


class TokenBook:
    """The tokens of one kind of peer, as digests."""

    def __init__(self, entries: Iterable[tuple[str, str]]) -> None:
        self._digests = tuple((name, _digest(token)) for name, token in entries)

    @classmethod
    def read(cls, path: Path) -> TokenBook:
        """
        A file of NAME:TOKEN lines; blank lines and those that begin with # count for nothing.

        Raises:
            ConfigError: the file cannot be read, or a line is none of these.

        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(str(path), "", f"a readable file of tokens ({error})") from None
        entries = []
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            name, colon, token = text.partition(":")
            if not (colon and name.strip() and token.strip()):
                raise ConfigError(str(path), f"line {number}", "NAME:TOKEN")
            entries.append((name.strip(), token.strip()))
        if not entries:
            raise ConfigError(str(path), "", "at least one NAME:TOKEN line")
        return cls(entries)

    def name_of(self, token: str) -> str | None:
        """Whose token it is; takes as long for a wrong one as for the right one."""
        given, found = _digest(token), None
        for name, digest in self._digests:
            if hmac.compare_digest(given, digest):
                found = name
        return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


class Admission:
    """
    Keeps the counts of one instance and says no where a bound is reached.

    Args:
        settings: the bounds, the origins and where the tokens are.
        now: the clock, in nanoseconds.

    Raises:
        ConfigError: a file of tokens is wrong.

    """

    def __init__(self, settings: Settings, now: Callable[[], int]) -> None:
        auth = settings.auth
        self._limits = settings.limits
        self._origins = settings.server.origins
        self._books = {
            "client": TokenBook.read(Path(auth.client_tokens_file))
            if auth.client_tokens_file
            else None,
            "node": TokenBook.read(Path(auth.node_tokens_file)) if auth.node_tokens_file else None,
        }
        self._now = now
        self._wrong: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self.connections = 0
        self.sessions: dict[str, str] = {}
        self._per_client: dict[str, int] = {}
        self.draining = False

    # The opening handshake

    def handshake(self, path: str, headers: Mapping[str, str], address: str) -> Refusal | None:
        """Why a socket is not opened; the names of `headers` are in lower case."""
        names = [name for name, _ in parse_qsl(urlsplit(path).query, keep_blank_values=True)]
        if any(name.casefold() in QUERY_NAMES for name in names):
            return refusals.TOKEN_IN_QUERY
        if not self._origin_may(headers.get("origin"), headers.get("host", "")):
            return refusals.BAD_ORIGIN
        if self.draining:
            return refusals.RESTART
        if self._is_shut_out(address):
            return refusals.SHUT_OUT
        if self.connections >= self._limits.connections_max:
            return refusals.FULL
        return None

    def _origin_may(self, origin: str | None, host: str) -> bool:
        if origin is None or "*" in self._origins or origin in self._origins:
            return True
        if self._origins:
            return False
        return urlsplit(origin).netloc.casefold() == host.casefold()

    # Tokens

    def needs_token(self, kind: str) -> bool:
        """Whether peers of this kind have to show one."""
        return self._books[kind] is not None

    def name_of(self, kind: str, token: str, address: str) -> str | None:
        """Who shows this token; "" where none is asked for, None if it is wrong."""
        book = self._books[kind]
        if book is None:
            return ""
        name = book.name_of(token) if token and not self._is_shut_out(address) else None
        if name is None and token:
            self._note_wrong(address)
        return name

    def _is_shut_out(self, address: str) -> bool:
        since_ns, count = self._wrong.get(address, (0, 0))
        if self._now() - since_ns >= MINUTE:
            return False
        return count >= self._limits.refused_logins_per_min_max

    def _note_wrong(self, address: str) -> None:
        since_ns, count = self._wrong.get(address, (self._now(), 0))
        if self._now() - since_ns >= MINUTE:
            since_ns, count = self._now(), 0
            self._wrong.pop(address, None)
        while len(self._wrong) >= ADDRESSES_MAX and address not in self._wrong:
            self._wrong.popitem(last=False)
        self._wrong[address] = (since_ns, count + 1)

    # Sessions

    def may_open_session(self, client: str) -> Refusal | None:
        """Why this client may not open one more session."""
        if self.draining:
            return refusals.RESTART
        if len(self.sessions) >= self._limits.sessions_max:
            return refusals.FULL
        if self._per_client.get(client, 0) >= self._limits.sessions_per_client_max:
            return refusals.CLIENT_SESSIONS
        return None

    def session_opened(self, session_id: str, client: str) -> None:
        """Count a session."""
        self.sessions[session_id] = client
        self._per_client[client] = self._per_client.get(client, 0) + 1

    def session_ended(self, session_id: str) -> None:
        """Count it no longer."""
        client = self.sessions.pop(session_id, None)
        if client is None:
            return
        left = self._per_client.pop(client) - 1
        if left:
            self._per_client[client] = left

    def may_register(self, nodes: int) -> Refusal | None:
        """Why no further node may register; `nodes` are connected."""
        if self.draining:
            return refusals.RESTART
        return refusals.FULL if nodes >= self._limits.nodes_max else None

    # Patience

    def pressure(
        self, client: str, pending: int, pending_max: int, *, is_new: bool
    ) -> Backpressure | None:
        """
        What to ask of a client now; None while there is room.

        A new session counts the sessions too. All that waits for a node is everybody's business.
        """
        at = self._limits.backpressure_at
        if pending >= at * pending_max:
            return Backpressure(action=BackpressureAction.BUSY, resume_after_ms=RESUME_AFTER_MS)
        crowded = len(self.sessions) > at * self._limits.sessions_max or (
            self._per_client.get(client, 0) > at * self._limits.sessions_per_client_max
        )
        if is_new and (crowded or self.connections > at * self._limits.connections_max):
            return Backpressure(
                action=BackpressureAction.SLOW_DOWN, resume_after_ms=RESUME_AFTER_MS
            )
        return None


def shown_token(headers: Mapping[str, str]) -> str:
    """The token of an opening handshake, "" if it shows none; header names in lower case."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.casefold() == "bearer" and token.strip():
        return token.strip()
    for offered in headers.get("sec-websocket-protocol", "").split(","):
        name = offered.strip()
        if name.startswith(BEARER):
            return name.removeprefix(BEARER)
    return ""
