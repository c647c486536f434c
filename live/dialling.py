"""
Connecting to a scheduler, for nodes, clients and load: one way to dial, refuse and wait.

Tokens travel in the `Authorization` header, never in the address: addresses end up in logs. What
the far end says at the HTTP level becomes either a refusal for good or a reason to try again.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
)

from simsched.errors import ConfigError, SimschedError
from simsched.messages import ErrorCode

OPEN_LIMIT_S: Final = 10.0
CLOSE_LIMIT_S: Final = 2.0
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP answers that another try may mend."""


_NEVER: Final = frozenset({1008, 4401, 4403})
"""Close codes that another try will not mend: policy violation, and our own for tokens."""


FOR_NOW: Final = frozenset(
    {"SERVER_BUSY", "SERVER_DRAINING", "TOO_MANY_SESSIONS", ErrorCode.SCHEDULER_DEPENDENCY_DOWN}
)
"""Refusals that say nothing about the session that was asked for: another server, or later."""


class Refused(SimschedError):
    """The scheduler will not have this peer; `code` is its word, or the status of HTTP."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message


def refused(code: str, message: str) -> Refused:
    """A refusal in the scheduler's words, cut to one short line."""
    return Refused(str(code), " ".join(message.split())[:300])


def reason_of(error: BaseException) -> str:
    """Why something failed, on one line; timeouts have no words of their own."""
    return " ".join(str(error).split()) or type(error).__name__


class Backoff:
    """
    How long to wait before the next try: twice as long each time, and never all at once.

    Args:
        draw: a number in [0, 1); the pause lies between half of its step and all of it.
        first_s: the first step, in seconds.
        most_s: the longest.

    """

    def __init__(
        self, draw: Callable[[], float], *, first_s: float = 0.2, most_s: float = 15.0
    ) -> None:
        self._draw = draw
        self._first_s = self._step_s = first_s
        self._most_s = most_s

    def next_s(self) -> float:
        """The next pause, in seconds."""
        step_s = self._step_s
        self._step_s = min(self._most_s, 2 * step_s)
        return step_s * (0.5 + 0.5 * self._draw())

    def reset(self) -> None:
        """All is well: the next pause is the first again."""
        self._step_s = self._first_s


def address(url: str, path: str) -> str:
    """
    The address of a socket: `host:5010`, `http://host` and `ws://host/ws/node` all serve.

    Raises:
        ConfigError: no address, or one with a token in it.

    """
    text = url if "://" in url else f"ws://{url}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ConfigError("address", url, str(error)) from None
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.hostname:
        raise ConfigError("address", url, "written ws://HOST:PORT, or wss:// for TLS")
    if parts.username or parts.password or "token" in parts.query:
        raise ConfigError("address", parts.hostname, "a token is given by --token, not in it")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = parts.path if parts.path not in ("", "/") else path
    return f"{scheme}://{host}{f':{port}' if port else ''}{place}"


async def dial(url: str, token: str, *, frame_bytes_max: int) -> ClientConnection:
    """
    Open a WebSocket; the caller closes it.

    Raises:
        Refused: the far end is no such server, or refuses this peer for good.
        OSError, TimeoutError: it cannot be reached, or not now.

    """
    headers = {"Authorization": f"Bearer {token}"} if token else None
    try:
        return await connect(
            url,
            additional_headers=headers,
            compression=None,
            max_size=frame_bytes_max,
            open_timeout=OPEN_LIMIT_S,
            close_timeout=CLOSE_LIMIT_S,
            ping_interval=20,
            ping_timeout=20,
            proxy=None,
        )
    except InvalidStatus as error:
        status = error.response.status_code
        body = bytes(error.response.body or b"").decode("utf-8", "replace")
        if status in _AGAIN:
            raise ConnectionError(f"HTTP {status} {body[:100]}".strip()) from None
        raise refused(f"HTTP {status}", body or error.response.reason_phrase) from None
    except InvalidURI as error:
        raise refused("INVALID_ADDRESS", str(error)) from None
    except InvalidMessage as error:
        # It hung up in the middle of the handshake, or speaks something else.
        raise ConnectionError(str(error)) from None
    except InvalidHandshake as error:
        raise refused("NO_WEBSOCKET", str(error)) from None
    except ssl.SSLCertVerificationError as error:
        raise refused("TLS", error.verify_message) from None


def check_close(closed: ConnectionClosed) -> None:
    """
    Look at why the far end closed.

    Raises:
        Refused: it will not have this peer, now or later.

    """
    if closed.rcvd is not None and closed.rcvd.code in _NEVER:
        raise refused(f"closed with {closed.rcvd.code}", closed.rcvd.reason) from None


def token_from(token: str, file: Path | None) -> str:
    """
    A token as given, or the first line of a file: command lines are seen by everybody.

    Raises:
        ConfigError: the file cannot be read, or is empty.

    """
    if token or file is None:
        return token
    text = ""
    with suppress(OSError, UnicodeDecodeError):
        text = file.read_text(encoding="utf-8").strip()
    if not text:
        raise ConfigError("token", str(file), "a file whose first line is the token")
    return text.splitlines()[0].strip()
