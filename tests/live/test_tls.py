"""TLS from files: clients, nodes and HTTP over one encrypted port, and plain ones turned away."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake

from simsched.live.engines import EchoEngine
from simsched.live.node import NodeAgent
from simsched.live.node_profile import node_options
from simsched.live.settings import TlsSettings
from tests.live.live_world import INIT, World, run, settings_with, until, world

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and localhost that nobody but us trusts, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", str(key),
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-out", str(cert),
        ],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return cert, key


def secure(live: World, path: str) -> str:
    return f"wss://127.0.0.1:{live.server.port}{path}"


async def get(live: World, path: str, trust: ssl.SSLContext) -> str:
    """The status line of a GET; this server has no answerer, so nothing is found."""
    reader, writer = await asyncio.open_connection("127.0.0.1", live.server.port, ssl=trust)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    return line.decode()


def test_clients_nodes_and_http_share_the_encrypted_port(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An utterance is answered through our own node, which trusts what SSL_CERT_FILE names."""
    cert, key = pair
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))

    async def main() -> None:
        trust = ssl.create_default_context(cafile=str(cert))
        settings = settings_with(tls=TlsSettings(cert=str(cert), key=str(key)))
        async with world(settings) as live:
            agent = NodeAgent(node_options(secure(live, "")), EchoEngine())
            working = asyncio.create_task(agent.run())
            await agent.connected.wait()
            await until(lambda: bool(live.instance.scheduler.state.cluster.local))
            async with connect(secure(live, "/ws/session"), ssl=trust, proxy=None) as client:
                await client.send(json.dumps(INIT))
                session = json.loads(await client.recv())["session_id"]
                await client.send(
                    json.dumps(
                        {"type": "utterance", "session_id": session, "utterance_index": 0,
                         "manual_cut": True, "src_lang": "zh", "tgt_lang": "en", "audio": "AAAA",
                         "audio_format": "pcm16", "sample_rate": 16_000}
                    )
                )  # fmt: skip
                while (answer := json.loads(await client.recv()))["type"] == "ui_event":
                    pass
                assert answer["utterance_index"] == 0
            assert "HTTP/1.1 404" in await get(live, "/nothing", trust)
            working.cancel()
            await asyncio.wait([working])

    run(main())


def test_who_does_not_speak_tls_is_turned_away(pair: tuple[Path, Path]) -> None:
    """A plain handshake gets no answer that could be mistaken for one, and the server goes on."""
    cert, key = pair

    async def main() -> None:
        settings = settings_with(tls=TlsSettings(cert=str(cert), key=str(key)))
        async with world(settings) as live:
            with pytest.raises((InvalidHandshake, OSError, EOFError)):
                async with connect(live.url("/ws/session"), proxy=None, open_timeout=5):
                    pass
            with pytest.raises(ssl.SSLCertVerificationError):
                async with connect(secure(live, "/ws/session"), proxy=None):
                    pass
            trust = ssl.create_default_context(cafile=str(cert))
            assert "HTTP/1.1 404" in await get(live, "/nothing", trust)

    run(main())
