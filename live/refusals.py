"""
Every way in which the server says no: the error code, the close code and the words, in one table.

A refusal reaches its peer as an `error` message, as the close of its socket, as an HTTP answer to
its opening handshake, or as a message and then the close; which of these is up to whoever refuses.
Close codes from 4000 on are our own; the others are the registered ones (RFC 6455, 7.4; 1012 and
1013 from the IANA registry). Nothing here decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from simsched.messages import Error, ErrorCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """
    One way to say no.

    Attributes:
        code: of the `error` message.
        close: of the socket; 0: the socket stays open.
        status: of the HTTP answer, where a handshake is refused; 0: never then.
        text: what people read; ASCII, at most 100 bytes, so that it fits a close frame.

    """

    code: str
    text: str
    close: int = 0
    status: int = 0

    def message(self, detail: str = "") -> Error:
        """The `error` message."""
        return Error(code=self.code, message=f"{self.text}: {detail}" if detail else self.text)


NORMAL: Final = Refusal(code="", close=1000, text="goodbye")
INTERNAL: Final = Refusal(
    code=ErrorCode.INTERNAL_ERROR, close=1011, status=500, text="the server failed"
)
RESTART: Final = Refusal(
    code="SERVER_DRAINING", close=1012, status=503, text="service restart: connect again"
)
FULL: Final = Refusal(code="SERVER_BUSY", close=1013, status=503, text="full: try again later")
BAD_TOKEN: Final = Refusal(
    code="UNAUTHENTICATED", close=4401, status=401, text="a valid token is needed"
)
SHUT_OUT: Final = Refusal(
    code="TOO_MANY_FAILURES", close=4429, status=429, text="too many wrong tokens"
)
TOKEN_IN_QUERY: Final = Refusal(
    code="TOKEN_IN_QUERY", status=400,
    text="a token may not stand in the address: use a header, a subprotocol or the first frame",
)  # fmt: skip
BAD_ORIGIN: Final = Refusal(
    code="ORIGIN_REFUSED", status=403, text="pages of this origin may not connect"
)
NO_FIRST_FRAME: Final = Refusal(
    code=ErrorCode.INVALID_MESSAGE, close=4408, text="nothing was opened in time"
)
REPLACED: Final = Refusal(code="", close=4409, text="another connection took over")
NO_HEARTBEAT: Final = Refusal(code="", close=4410, text="no heartbeat: register again")
UNREADABLE: Final = Refusal(
    code=ErrorCode.INVALID_MESSAGE, close=4400, text="too many refused frames in a row"
)
SLOW: Final = Refusal(code="", close=4413, text="too slow: messages waited too long")
NO_PONG: Final = Refusal(code="", close=4414, text="no answer to pings")
CLIENT_SESSIONS: Final = Refusal(
    code="TOO_MANY_SESSIONS", close=1013, text="this client has too many sessions"
)
NO_RESUME: Final = Refusal(
    code=ErrorCode.SESSION_CLOSED, text="this session cannot be resumed: open a new one"
)
NO_STORE: Final = Refusal(
    code=ErrorCode.SCHEDULER_DEPENDENCY_DOWN,
    text="whose session this is cannot be asked now: try again",
)
NO_STREAM: Final = Refusal(
    code=ErrorCode.INVALID_MESSAGE,
    text="this session came from another instance and takes whole utterances only",
)
NO_SESSION: Final = Refusal(code=ErrorCode.INVALID_SESSION, text="Session does not exist")
NOT_YOURS: Final = Refusal(
    code=ErrorCode.INVALID_SESSION, text="this socket has opened another session"
)
NOT_REGISTERED: Final = Refusal(
    code=ErrorCode.INVALID_MESSAGE, text="register first: no node on this socket"
)
NOT_THIS_NODE: Final = Refusal(
    code=ErrorCode.NODE_ID_CONFLICT, text="this socket registered another node"
)
NODE_IN_USE: Final = Refusal(
    code=ErrorCode.NODE_ID_CONFLICT, text="a node of this id is connected and answers"
)
BAD_SCHEMA: Final = Refusal(
    code=ErrorCode.INVALID_CAPABILITY_SCHEMA, text="capability_schema_version must be 2.0"
)
NO_GPU: Final = Refusal(
    code=ErrorCode.NO_GPU_AVAILABLE, text="hardware.gpus must name at least one"
)
FAILED: Final = Refusal(code=ErrorCode.INTERNAL_ERROR, text="Failed to process message")

TABLE: Final[dict[str, Refusal]] = {
    name: value for name, value in sorted(globals().items()) if isinstance(value, Refusal)
}
"""All of them by name, for the protocol page."""
