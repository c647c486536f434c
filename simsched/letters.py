"""
Entries of inboxes as they are written: two versions of the protocol between instances.

An instance writes in the oldest version that anybody in the cell speaks, itself included: should
the reader die, any of the others reads what lies in its inbox. Versions are announced with the
signs of life; of whom nothing is known yet, the oldest is assumed. An instance reads its own
version and all before; fields that it does not know it passes over. What is newer than itself it
refuses, and whoever carries entries sees to it that nothing is lost by that.

- **1**: `kind` and `body`, the event as MessagePack.
- **2**: also `version`, the sender (`from`), which of its lives (`life`) and the `number` of the
  entry among all that it wrote to this reader. So an entry that comes twice is recognised: one
  whose deletion failed or was lost by a failover. And it has a word for a session that moved.

Knows no streams and no Redis.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

import msgspec

from simsched.inbox import (
    DispatchToNode,
    ForwardResult,
    InboxEvent,
    NodeSeen,
    SendToSession,
    SessionMoved,
)

OLDEST: Final = 1
NEWEST: Final = 2

NUMBERS_MAX: Final = 1_024
"""Entries of one sender's life that are remembered: more than may be handled without a deletion."""

SENDERS_MAX: Final = 256

REPEATED: Final = "repeated"
NEWER: Final = "newer"
BROKEN: Final = "broken"


class Kind(NamedTuple):
    """One kind of event, and the first version that has a word for it."""

    type: type
    since: int = OLDEST


KINDS: Final[dict[bytes, Kind]] = {
    b"dispatch": Kind(DispatchToNode),
    b"result": Kind(ForwardResult),
    b"client": Kind(SendToSession),
    b"node": Kind(NodeSeen),
    b"moved": Kind(SessionMoved, since=2),
}
_NAMES: Final = {kind.type: name for name, kind in KINDS.items()}

_encode: Final = msgspec.msgpack.Encoder().encode
_decoders: Final[dict[bytes, msgspec.msgpack.Decoder[Any]]] = {
    name: msgspec.msgpack.Decoder(kind.type) for name, kind in KINDS.items()
}

Fields = dict[bytes, bytes]


def encode_event(event: object) -> tuple[bytes, bytes]:
    """The kind and the body of an event."""
    return _NAMES[type(event)], _encode(event)


def decode_event(kind: bytes, body: bytes) -> InboxEvent:
    """
    The event of a kind and a body.

    Raises:
        msgspec.DecodeError, KeyError: it is none.

    """
    return cast("InboxEvent", _decoders[kind].decode(body))


class Read(NamedTuple):
    """What an entry says, or why it says nothing: REPEATED, NEWER, BROKEN."""

    event: InboxEvent | None
    why_not: str = ""


class Letters:
    """
    One instance's hand: writes entries, and reads those of others.

    Args:
        me: the instance.
        life: tells this start of it from others under the same name.
        version: the newest version that it speaks.

    """

    def __init__(self, me: str, life: str, version: int = NEWEST) -> None:
        assert OLDEST <= version <= NEWEST
        self.version = version
        self._me = me.encode()
        self._life = life.encode()
        self._written: dict[str, int] = {}
        self._seen: OrderedDict[tuple[bytes, bytes], OrderedDict[bytes, None]] = OrderedDict()

    def write(self, event: object, to: str, reader: int) -> Fields | None:
        """The entry for a reader of that version; None if that version has no word for it."""
        version = min(self.version, reader)
        name, body = encode_event(event)
        if KINDS[name].since > version:
            return None
        fields = {b"kind": name, b"body": body}
        if version > OLDEST:
            number = self._written[to] = self._written.get(to, 0) + 1
            fields |= {
                b"version": b"%d" % version, b"from": self._me, b"life": self._life,
                b"number": b"%d" % number,
            }  # fmt: skip
        return fields

    def read(self, fields: Mapping[bytes, bytes]) -> Read:
        """An entry of our own inbox; one that was read before is REPEATED."""
        found = self.peek(fields)
        if found.event is not None and self._is_repeated(fields):
            return Read(None, REPEATED)
        return found

    def peek(self, fields: Mapping[bytes, bytes]) -> Read:
        """An entry of anybody's inbox."""
        if version_of(fields) > self.version:
            return Read(None, NEWER)
        kind = fields.get(b"kind", b"")
        try:
            return Read(decode_event(kind, fields.get(b"body", b"")))
        except (msgspec.DecodeError, KeyError):
            return Read(None, BROKEN)

    def _is_repeated(self, fields: Mapping[bytes, bytes]) -> bool:
        """By its number, not by its order: one that was long on its way may be overtaken."""
        number = fields.get(b"number")
        if number is None:
            return False
        sender = (fields.get(b"from", b""), fields.get(b"life", b""))
        seen = self._seen.setdefault(sender, OrderedDict())
        self._seen.move_to_end(sender)
        if len(self._seen) > SENDERS_MAX:
            self._seen.popitem(last=False)
        if number in seen:
            return True
        seen[number] = None
        if len(seen) > NUMBERS_MAX:
            seen.popitem(last=False)
        return False


def common_version(said: Mapping[str, int], to: str) -> int:
    """What an entry may be written in, by what everybody says to speak."""
    return min((said.get(to, OLDEST), *said.values()))


def version_of(fields: Mapping[bytes, bytes]) -> int:
    """The version of an entry; one that does not say is of the oldest, nonsense is of none."""
    said = fields.get(b"version", b"%d" % OLDEST)
    return int(said) if said.isdigit() and len(said) < 10 else NEWEST + 1
