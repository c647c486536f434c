"""
The commands of the live world, as `simsched.cli` offers them.

Thin: options in, one call, a few lines out. What does the work is imported when a command runs, so
that `simsched --help` stays quick. Errors on purpose are `SimschedError`s; the door prints them.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from simsched.errors import ConfigError

DEFAULT_URL = "ws://127.0.0.1:5010"


def _say(text: str) -> None:
    click.echo(text)


def _settings(config: Path | None, given: dict[str, Any], settings: Sequence[str]) -> Any:
    """The settings under a file, the environment and flags by dotted name."""
    from simsched.live.settings_files import load

    flags = {name.replace("__", "."): value for name, value in given.items() if value is not None}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError("option", "--set", f"written section.key=value, not {text!r}")
        flags[key.strip()] = value.strip()
    return load(config, os.environ, flags)


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="TOML file of settings.")
@click.option("--host", "server__host", help="Address to listen on (127.0.0.1).")
@click.option("--port", "server__port", type=int, help="Port of everything (5010); 0: a free one.")
@click.option("--redis-url", "store__redis_url", help="Store of all instances; none: one inside.")
@click.option("--policy", "policy", help="What the core does (safe).")
@click.option("--canary", "canary__policy", help="Policy of a share of the sessions.")
@click.option("--canary-share", "canary__share", help="That share, such as 20%.")
@click.option("--record", "record__dir", help="Folder to record the run into.")
@click.option("--client-tokens", "auth__client_tokens_file", help="File of NAME:TOKEN lines.")
@click.option("--node-tokens", "auth__node_tokens_file", help="File of NAME:TOKEN lines.")
@click.option("--allow-anonymous", "auth__allow_anonymous", is_flag=True, default=None,
              help="Serve other hosts without tokens.")  # fmt: skip
@click.option("--tls-cert", "tls__cert", help="Certificate chain, PEM.")
@click.option("--tls-key", "tls__key", help="Its key, PEM.")
@click.option("--log-level", "log__level", help="debug, info, warning or error.")
@click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE",
              help="Any other setting; docs/configuration.md lists them.")  # fmt: skip
def serve(config: Path | None, settings: Sequence[str], **given: Any) -> None:
    """Run the server: clients at /ws/session, nodes at /ws/node, a dashboard at /."""
    from simsched.live.runtime import run
    from simsched.live.serve import main

    sys.exit(run(main(_settings(config, given, settings), _say)))


@click.command()
@click.argument("url", default=DEFAULT_URL)
@click.option("--id", "node_id", default="", help="Its name; else the scheduler names it.")
@click.option("--token", envvar="SIMSCHED_TOKEN", default="", help="Its token.")
@click.option("--slots", type=int, default=4, show_default=True, help="Jobs at once.")
@click.option("--languages", default="", help="en,zh,de: it translates every two of them.")
@click.option("--pairs", default="", help="en-zh,zh-en: it translates these.")
@click.option("--services", default="", help="asr,nmt,tts,semantic: what it offers; else all.")
@click.option("--engine", default="echo", show_default=True,
              help="echo, sleep, command or python:module:Class.")  # fmt: skip
@click.option("--command", default="", help="Program of the engine `command`: WAV in, JSON out.")
@click.option("--timeout", type=float, default=None, help="Seconds the program may take.")
@click.option("--speed", type=float, default=1.0, show_default=True, help="Of the engine `sleep`.")
@click.option("--service", type=click.Path(path_type=Path), help="Service times of `sleep`, TOML.")
@click.option("--gpu/--no-gpu", default=True, show_default=True, help="Whether it has a GPU.")
@click.option("--heartbeat", type=float, default=15.0, show_default=True, help="Seconds between.")
@click.option("--drain", type=float, default=30.0, show_default=True, help="Seconds to finish.")
def node(url: str, engine: str, **given: Any) -> None:
    """Work for the scheduler at URL."""
    from simsched.live import node as agent
    from simsched.live.drain import StopSignals
    from simsched.live.engines import EngineOptions, engine_named
    from simsched.live.node_profile import node_options
    from simsched.live.runtime import run

    timeout = {} if given["timeout"] is None else {"timeout_s": given["timeout"]}
    chosen = engine_named(
        engine,
        EngineOptions(
            command=given["command"], speed=given["speed"], service=given["service"], **timeout
        ),
    )
    options = node_options(
        url, node_id=given["node_id"], token=given["token"], slots=given["slots"],
        languages=given["languages"], pairs=given["pairs"], services=given["services"],
        gpu=given["gpu"], heartbeat_s=given["heartbeat"], drain_s=given["drain"],
    )  # fmt: skip

    async def work() -> None:
        signals = StopSignals()
        signals.install()
        working = asyncio.create_task(agent.main(options, chosen, signals.leave, _say))
        hurry = asyncio.create_task(signals.now.wait())
        await asyncio.wait({working, hurry}, return_when=asyncio.FIRST_COMPLETED)
        for task in (working, hurry):
            if not task.done():
                task.cancel()
        await asyncio.wait({working, hurry})
        if not working.cancelled():
            working.result()

    run(work())


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--src", "source", default="en", show_default=True, help="Language spoken.")
@click.option("--tgt", "target", default="zh", show_default=True, help="Language wanted.")
@click.option("--url", default=DEFAULT_URL, show_default=True)
@click.option("--token", envvar="SIMSCHED_TOKEN", default="", help="The client's token.")
@click.option("--fast", is_flag=True, help="Do not keep the pace of speech.")
@click.option("--json-audio", is_flag=True, help="Audio in JSON, not in binary frames.")
@click.option("--save-tts", type=click.Path(path_type=Path), help="Write the spoken answer here.")
def talk(json_audio: bool, **given: Any) -> None:
    """Speak FILE, a WAV, and print what comes back."""
    from simsched.live.runtime import run
    from simsched.live.talk import TalkOptions, main

    sys.exit(run(main(TalkOptions(binary=not json_audio, **given), _say)))


@click.command()
@click.argument("url", default=DEFAULT_URL)
@click.option("--file", type=click.Path(path_type=Path), help="Study or workload file, TOML.")
@click.option("--rate", "rate_per_s", type=float, help="Sessions a second, instead of the file's.")
@click.option("--duration", "duration_s", type=float, default=60.0, show_default=True,
              help="Seconds in which sessions come.")  # fmt: skip
@click.option("--sessions", type=int, help="At most so many sessions.")
@click.option("--token", envvar="SIMSCHED_TOKEN", default="", help="The clients' token.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--answer", "answer_s", type=float, default=60.0, show_default=True,
              help="Seconds that an answer may take before it counts as lost.")  # fmt: skip
@click.option("--json-audio", is_flag=True, help="Audio in JSON, not in binary frames.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the results.")
def load(json_audio: bool, **given: Any) -> None:
    """Play a workload against the server at URL, open loop, and count every utterance."""
    from simsched.live.drain import StopSignals
    from simsched.live.load import main
    from simsched.live.load_options import load_options
    from simsched.live.runtime import run

    options = load_options(binary=not json_audio, **given)

    def tell(line: str) -> None:
        click.echo(line, err=True)

    async def play() -> int:
        signals = StopSignals()
        signals.install()
        shown = tell if sys.stderr.isatty() else None
        return await main(options, _say, tell=shown, stop=signals.leave)

    sys.exit(run(play()))


@click.command()
@click.argument("pid", type=int)
@click.option("--wait", type=float, default=60.0, show_default=True, help="Seconds to wait.")
def drain(pid: int, wait: float) -> None:
    """Ask the server with process id PID to leave in good order, and wait for its end."""
    from simsched.live.leaving import ask_to_leave

    sys.exit(ask_to_leave(pid, wait, _say))


@click.command()
@click.argument("job")
@click.option("--url", default="http://127.0.0.1:5010", show_default=True)
@click.option("--token", envvar="SIMSCHED_TOKEN", default="", help="Where the server asks for one.")
def why(job: str, url: str, token: str) -> None:
    """Why JOB went where it went: the nodes looked at, and what spoke against each."""
    from simsched.live.why import explain

    click.echo(explain(url, job, token))


@click.group()
def config() -> None:
    """Settings: check a file, show what holds, take over a reference's file, make a token."""


@config.command("check")
@click.argument("file", type=click.Path(path_type=Path), required=False)
def config_check(file: Path | None) -> None:
    """Whether a server would start with FILE and the environment."""
    from simsched.live.config_commands import check

    for line in check(file, os.environ, {}):
        click.echo(line)


@config.command("show")
@click.argument("file", type=click.Path(path_type=Path), required=False)
def config_show(file: Path | None) -> None:
    """The settings that hold, and where each came from; secrets are masked."""
    from simsched.live.config_commands import show
    from simsched.live.settings_files import load_with_sources

    click.echo(show(load_with_sources(file, os.environ)), nl=False)


@config.command("import")
@click.argument("reference", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Write it here, not to the terminal.")
def config_import(reference: Path, out: Path | None) -> None:
    """The reference scheduler's config.toml as a file of ours, with notes on every key."""
    from simsched.live.config_commands import take_over

    imported, where = take_over(reference, out)
    click.echo(f"written to {where}" if where else imported.text)
    for note in imported.notes:
        click.echo(note, err=True)


@config.command("token")
@click.argument("name")
def config_token(name: str) -> None:
    """A line for a file of tokens: NAME and a new token."""
    from simsched.live.config_commands import new_token_line

    click.echo(new_token_line(name))
