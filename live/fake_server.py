"""
Fakeredis behind a unix socket: the last fallback of an instance that finds no server.

One thread per connection, RESP2 only, no HELLO. Fakeredis brings a TCP server of its own, but that
opens a port, hangs up after every error reply (NOSCRIPT too) and polls. This one answers like a
server as far as `RedisConnection` can see. It is slow (about a millisecond per script) and shares
the interpreter with the instance: only good for trying out.
"""

from __future__ import annotations

import socketserver
import threading
from typing import Any, Final

import hiredis

RECEIVE_BYTES: Final = 65_536


class FakeServer(socketserver.ThreadingUnixStreamServer):
    """Serves one fake key space at a path, from a thread of its own, until `stop`."""

    daemon_threads = True  # one may still sit in a blocking read when we leave
    block_on_close = False

    def __init__(self, path: str) -> None:
        import fakeredis  # it brings a Lua along: only who needs it loads it

        super().__init__(path, _Connection)
        self.keys = fakeredis.FakeServer()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), name="fakeredis")
        self._thread.start()

    def stop(self) -> None:
        """Take no more connections; those that stand end with their client."""
        self.shutdown()
        self.server_close()
        self._thread.join()

    def client(self) -> Any:
        """A client of the key space whose replies are as the protocol has them."""
        import fakeredis

        client = fakeredis.FakeRedis(server=self.keys, protocol=2)
        client.response_callbacks.clear()
        return client


class _Connection(socketserver.BaseRequestHandler):
    server: FakeServer

    def handle(self) -> None:
        client = self.server.client()
        reader = hiredis.Reader()
        try:
            while data := self.request.recv(RECEIVE_BYTES):
                reader.feed(data)
                while (words := reader.gets()) is not False:
                    self.request.sendall(_answer(client, words))
        except (OSError, hiredis.ProtocolError):
            return  # the client is gone, or is none
        finally:
            client.close()


def _answer(client: Any, words: Any) -> bytes:
    if isinstance(words, bytes):  # an inline command
        words = words.split()
    try:
        return _encoded(client.execute_command(*words))
    except Exception as error:
        return b"-%s\r\n" % _refusal(error).replace("\r", " ").replace("\n", " ").encode()


def _refusal(error: Exception) -> str:
    """A client strips the code off the errors that it has a class for: put it back."""
    from redis import exceptions

    text = str(error)
    if isinstance(error, exceptions.NoScriptError):
        return f"NOSCRIPT {text}"
    return text if text.partition(" ")[0].isupper() else f"ERR {text}"


def _encoded(value: Any) -> bytes:
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, list | tuple | set):
        return b"*%d\r\n%s" % (len(value), b"".join(map(_encoded, value)))
    if isinstance(value, dict):
        return _encoded([part for pair in value.items() for part in pair])
    data = value if isinstance(value, bytes) else str(value).encode()
    return b"$%d\r\n%s\r\n" % (len(data), data)
