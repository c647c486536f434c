"""
Reading one socket: frame by frame, fair to the others, and patient with nonsense up to a point.

What a frame means is its reader's business; here is what holds for clients and nodes alike. A
frame that cannot be understood is answered and the socket stays open; too many in a row close it.
A frame whose handling fails is answered with INTERNAL_ERROR, and counted: one peer's message ends
nobody else's work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from websockets.exceptions import ConnectionClosed

from simsched import wire
from simsched.errors import MessageError
from simsched.live import refusals
from simsched.live.connection import Connection
from simsched.live.sinks import Sink

BAD_FRAMES_MAX: Final = 100
"""Frames in a row that could not be understood, until the socket is closed."""

TURN: Final = 32
"""Frames of one socket that are handled before the others get a turn."""


async def read(
    connection: Connection,
    take: Callable[[bytes | str], Awaitable[None] | None],
    sink: Sink,
    failed: Callable[[str, BaseException], None],
) -> None:
    """Hand every frame to `take` until the socket is closed."""
    socket, refused, turn = connection.socket, 0, 0
    while True:
        try:
            frame = await socket.recv()
        except ConnectionClosed:
            return
        if connection.ended is not None:
            continue  # we said goodbye; what still comes is nobody's
        try:
            waits = take(frame)
            if waits is not None:
                await waits
            refused = 0
        except MessageError as error:
            refused += 1
            sink.count("frames_refused", 1)
            connection.send(wire.refusal(error))
            if refused >= BAD_FRAMES_MAX:
                connection.refuse(refusals.UNREADABLE)
        except Exception as error:
            sink.count("frames_failed", 1)
            failed(f"{connection.kind} frame", error)
            connection.refuse(refusals.FAILED)
        turn += 1
        if turn >= TURN:
            turn = 0
            await asyncio.sleep(0)
