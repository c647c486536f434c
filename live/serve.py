"""
`simsched serve`: one instance with its observers behind one port, until it is told to leave.

The process says where it listens once it does (`listening on ...`), logs on standard error, and
ends with 0 after a drain that left nothing, 1 if something was left or it was hurried, 3 if a part
failed that it cannot do without.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Final

import structlog

from simsched.live.drain import StopSignals
from simsched.live.instance import Instance, InstanceFailed
from simsched.live.observing import Observers
from simsched.live.server import Server
from simsched.live.settings import LogSettings, Settings

FAILED: Final = 3


async def main(settings: Settings, say: Callable[[str], None]) -> int:
    """
    Serve until SIGTERM or SIGINT; a second one leaves at once.

    Args:
        settings: everything that can be set.
        say: takes lines for a person.

    Returns:
        The exit code.

    Raises:
        ConfigError: something that was set is wrong, or the port is taken.

    """
    log_to_stderr(settings.log)
    observers = Observers(settings)
    signals = StopSignals()
    try:
        async with Instance(settings, sinks=observers.sinks) as instance:
            server = Server(instance, observers.attach(instance).answer)
            await server.start()
            signals.install()
            say(_welcome(settings, instance, server.port))
            report = await server.serve_until(signals.leave, signals.now)
    except InstanceFailed as error:
        logging.getLogger("simsched.live").critical("%s", error)
        return FAILED
    finally:
        observers.close()
        if settings.record.dir:
            say(f"recorded in {settings.record.dir}: simsched.load reads it")
    say(report.text() if report else "left at once: nothing was finished")
    return 0 if report is not None and report.is_clean else 1


def _welcome(settings: Settings, instance: Instance, port: int) -> str:
    scheme = "https" if settings.tls.cert else "http"
    store = f"store {instance.store_kind}"
    place = f"{scheme}://{settings.server.host}:{port}"
    return f"listening on {place} (instance {instance.instance_id}, {store}); dashboard at {place}/"


def log_to_stderr(settings: LogSettings) -> None:
    """Lines for people on a terminal, else one JSON object a line: when, how bad, who, what."""
    as_text = settings.format == "text" or (settings.format == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if as_text else structlog.processors.JSONRenderer()
    )
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    before: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        stamp,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *([] if as_text else [structlog.processors.format_exc_info]),
            renderer,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
