"""
The port: WebSockets of clients and nodes, and whatever is asked for by GET.

`/ws/session` and `/ws/node` are sockets, everything else goes to the HTTP answerer. A socket is
refused at its opening handshake for what can be known then (a token in the address, an origin, a
wrong token, too many sockets, a server that leaves), with an HTTP status and the code as JSON.
Frames are not compressed: a compressed one could hide any size.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Protocol

import msgspec
from websockets.asyncio.server import Server as SocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from simsched.errors import ConfigError
from simsched.live import refusals
from simsched.live.admission import RESUME_AFTER_MS, SUBPROTOCOL, shown_token
from simsched.live.client_socket import ClientSocket
from simsched.live.connection import WRITE_LIMIT, Connection, HeardSocket
from simsched.live.drain import DrainReport
from simsched.live.instance import Instance
from simsched.live.node_socket import NodeSocket
from simsched.live.refusals import Refusal
from simsched.live.settings import TlsSettings

KINDS: Final = {"/ws/session": "client", "/ws/node": "node"}

OPEN_LIMIT_S: Final = 10.0
"""How long an opening handshake may take."""

CLOSE_LIMIT_S: Final = 2.0


class HttpAnswer(Protocol):
    """An answer to a GET."""

    @property
    def status(self) -> int: ...
    @property
    def content_type(self) -> str: ...
    @property
    def body(self) -> bytes: ...


Answerer = Callable[[str, str, Mapping[str, str]], HttpAnswer]
"""Path, query and headers (names in lower case) to an answer."""


class Server:
    """
    Listens for one instance.

    Args:
        instance: it has been started.
        answer: who answers GET requests; without one they are not found.

    """

    def __init__(self, instance: Instance, answer: Answerer | None = None) -> None:
        self.instance = instance
        self._answer = answer
        self._listener: SocketServer | None = None

    async def start(self, sock: Any = None) -> None:
        """
        Begin to listen, on the settings' host and port or on a bound socket.

        Raises:
            ConfigError: the port is taken, or a file of TLS is wrong.

        """
        settings = self.instance.settings
        place: dict[str, Any] = {"host": settings.server.host, "port": settings.server.port}
        if sock is not None:
            place = {"sock": sock}
        try:
            self._listener = await serve(
                self._handle,
                **place,
                ssl=_tls(settings.tls),
                create_connection=HeardSocket,
                process_request=self._route,
                select_subprotocol=_subprotocol,
                compression=None,
                open_timeout=OPEN_LIMIT_S,
                close_timeout=CLOSE_LIMIT_S,
                ping_interval=None,
                max_size=settings.limits.frame_bytes_max,
                write_limit=WRITE_LIMIT,
                server_header=None,
            )
        except OSError as error:
            at = f"{settings.server.host}:{settings.server.port}"
            raise ConfigError(
                "server", "port", f"an address that is free, not {at} ({error})"
            ) from error

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._listener is not None, "start it first"
        return int(next(iter(self._listener.sockets)).getsockname()[1])

    async def serve_until(
        self, stop: asyncio.Event, hurry: asyncio.Event | None = None
    ) -> DrainReport | None:
        """
        Serve until `stop` is set, then leave in good order; at once if `hurry` is set.

        Returns what the drain left; None if there was no time for one.

        Raises:
            InstanceFailed: the instance cannot go on.

        """
        hurry = hurry or asyncio.Event()
        try:
            stopping, failing = _task(stop.wait()), _task(self.instance.wait_failed())
            await _first(stopping, failing)
            return await self._leave(hurry)
        finally:
            await self.close()

    async def _leave(self, hurry: asyncio.Event) -> DrainReport | None:
        draining, hurrying = _task(self.instance.drain()), _task(hurry.wait())
        await _first(draining, hurrying)
        return draining.result() if draining.done() and not draining.cancelled() else None

    async def close(self) -> None:
        """Stop listening and cut what is still open."""
        if self._listener is None:
            return
        self._listener.close(code=refusals.RESTART.close, reason=refusals.RESTART.text)
        await self._listener.wait_closed()
        self._listener = None

    # Opening

    def _route(self, socket: ServerConnection, request: Request) -> Response | None:
        path, _, query = request.path.partition("?")
        headers = _plain(request.headers)
        kind = KINDS.get(path)
        if kind is None:
            return self._page(path, query, headers)
        admission = self.instance.admission
        address = _address(socket)
        refusal = admission.handshake(request.path, headers, address)
        token = shown_token(headers)
        if refusal is None and token and admission.name_of(kind, token, address) is None:
            refusal = refusals.BAD_TOKEN
        if refusal is not None:
            sink, now = self.instance.sink, self.instance.runtime.now()
            sink.connection(now, kind, "", "refused", refusal.code)
            return _refused(refusal)
        if kind == "node":
            socket.protocol.max_message_size = self.instance.settings.limits.node_frame_bytes_max
        return None

    def _page(self, path: str, query: str, headers: Mapping[str, str]) -> Response:
        if self._answer is None:
            return _response(404, "text/plain; charset=utf-8", b"not found\n")
        answer = self._answer(path, query, headers)
        return _response(answer.status, answer.content_type, answer.body)

    async def _handle(self, socket: ServerConnection) -> None:
        assert isinstance(socket, HeardSocket)
        assert socket.request is not None
        instance = self.instance
        limits, admission = instance.settings.limits, instance.admission
        kind = KINDS[socket.request.path.partition("?")[0]]
        address = _address(socket)
        token = shown_token(_plain(socket.request.headers))
        name = admission.name_of(kind, token, address) if token else None
        known = name is not None or not admission.needs_token(kind)
        connection = Connection(
            socket, kind, address, name or address, instance.runtime.now, instance.sink,
            bytes_max=limits.outbox_bytes_max, age_ns_max=limits.outbox_age_ms_max * 1_000_000,
        )  # fmt: skip
        instance.connections[connection] = None
        admission.connections += 1
        speaks = ClientSocket if kind == "client" else NodeSocket
        try:
            await speaks(instance, connection, shows_token=known).serve()
        finally:
            admission.connections -= 1
            del instance.connections[connection]


def _tls(settings: TlsSettings) -> ssl.SSLContext | None:
    if not settings.cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.cert, settings.key)
    except (OSError, ssl.SSLError) as error:
        want = f"a PEM certificate and its key ({error})"
        raise ConfigError(settings.cert, "tls.cert", want) from error
    return context


def _subprotocol(_socket: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Ours if it was offered; the one that carries a token is never answered."""
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None


def _plain(headers: Headers) -> dict[str, str]:
    """Headers by their name in lower case; several of one name in one line, as HTTP has it."""
    plain: dict[str, str] = {}
    for name, value in headers.raw_items():
        key = name.lower()
        plain[key] = f"{plain[key]}, {value}" if key in plain else value
    return plain


def _address(socket: ServerConnection) -> str:
    remote = socket.remote_address
    return str(remote[0]) if isinstance(remote, tuple) and remote else "local"


def _refused(refusal: Refusal) -> Response:
    body = msgspec.json.encode({"code": refusal.code, "message": refusal.text})
    response = _response(refusal.status, "application/json", body + b"\n")
    if refusal.status in (429, 503):
        response.headers["Retry-After"] = str(-(-RESUME_AFTER_MS // 1_000))
    return response


def _response(status: int, content_type: str, body: bytes) -> Response:
    headers = Headers(
        {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            "Connection": "close",
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }
    )
    return Response(status, HTTPStatus(status).phrase, headers, body)


def _task(work: Any) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(work)


async def _first(*tasks: asyncio.Task[Any]) -> None:
    """Wait for the first to end, cancel the others; what it raised is raised."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()
