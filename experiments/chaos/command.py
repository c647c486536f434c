"""`simsched chaos`: break a live system on this machine, and see that nothing is lost."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import click

from simsched.cases import Case, case_text, read_case
from simsched.errors import ConfigError
from simsched.experiments.chaos.draw import POLICY, draw_case
from simsched.experiments.chaos.figures import figures, screen
from simsched.experiments.chaos.judging import judge, told
from simsched.experiments.chaos.merged import (
    in_order,
    read_recordings,
    settings_of,
    truths,
)
from simsched.experiments.chaos.run import Outcome, Tell, play, recordings_of
from simsched.faults import KINDS
from simsched.live.runtime import run
from simsched.presets import parse_policy

CASE_FILE: Final = "case.toml"
CLIENTS_FILE: Final = "clients.jsonl"
FIGURES_FILE: Final = "chaos.json"
VIOLATIONS_SHOWN: Final = 40

DRAWN: Final[dict[str, Any]] = {
    "seed": 1, "duration_s": 60, "instances": 3, "nodes": 6, "sessions": 100, "every_kind": 1,
    "policy": POLICY,
}  # fmt: skip
"""What is drawn where nothing else is asked for."""

FLAGS: Final = {"duration_s": "--duration", "every_kind": "--every-kind"}


@click.command()
@click.argument("file", metavar="[CASE.toml]", type=click.Path(path_type=Path), required=False)
@click.option("--seed", type=click.IntRange(0), help="Of the drawn schedule (1).")
@click.option("--duration", "duration_s", type=click.IntRange(10), metavar="SECONDS",
              help="How long clients speak and things break (60).")  # fmt: skip
@click.option("--instances", type=click.IntRange(1, 100), help="Instances (3).")
@click.option("--nodes", type=click.IntRange(1, 1_000), help="Nodes (6).")
@click.option("--sessions", type=click.IntRange(1, 10_000), help="Clients that speak (100).")
@click.option("--every-kind", type=click.IntRange(0), metavar="K",
              help="Each kind of fault, on each sort of target, K times (1).")  # fmt: skip
@click.option("--policy", help="Preset and changes (safe, with short times).")
@click.option("--out", type=click.Path(path_type=Path), default=Path("chaos"), show_default=True,
              help="New or empty folder for the case, recordings, logs and figures.")  # fmt: skip
@click.pass_context
def chaos(context: click.Context, /, file: Path | None, out: Path, **asked: Any) -> None:
    """
    Kill, pause and cut real processes, and check every answer; exit code 1 if a promise broke.

    With CASE.toml its schedule is played; else one is drawn and written to OUT/case.toml. OUT also
    gets what every instance recorded, what every client saw, and the figures (chaos.json).
    """
    case = _case(file, asked)
    _prepare(out)
    (out / CASE_FILE).write_text(case_text(case), encoding="utf-8")
    context.exit(_play(case, out))


def _case(file: Path | None, asked: dict[str, Any]) -> Case:
    given = {name: value for name, value in asked.items() if value is not None}
    if file is None:
        parse_policy(given.get("policy", POLICY))
        return draw_case(**(DRAWN | given))
    if given:
        name = next(iter(given))
        flag = FLAGS.get(name, f"--{name}")
        raise ConfigError("chaos", flag, f"without a case: {file} says all of it")
    case = read_case(file)
    check_live(case, str(file))
    return case


def check_live(case: Case, where: str) -> None:
    """
    See that a case can be done to real processes.

    Raises:
        ConfigError: names the first thing that only a simulator can do.

    """
    for number, fault in enumerate(case.faults, 1):
        place = f"{where}: fault {number}"
        if fault.is_at_step:
            want = f"a time (at_ms): only `hunt replay` can hit {fault.step} of {fault.target}"
            raise ConfigError(place, "step", want)
        if not KINDS[fault.kind].live:
            live = ", ".join(name for name, kind in KINDS.items() if kind.live)
            want = f"a kind that processes can be given ({live}), not {fault.kind}"
            raise ConfigError(place, "kind", want)
    if case.tape:
        label = next(iter(case.tape))
        want = f"absent: only `hunt replay` can depart from first come, first served ({label!r})"
        raise ConfigError(where, "[tape]", want)
    if case.system.mode != "utterance":
        raise ConfigError(where, "system.mode", f"utterance for chaos, not {case.system.mode}")
    if not case.turns:
        raise ConfigError(where, "turn", "there at least once: nobody speaks in this case")


def _prepare(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        is_empty = not any(out.iterdir())
    except OSError as error:
        raise ConfigError("chaos", "--out", f"a folder that can be made: {error}") from None
    if not is_empty:
        raise ConfigError("chaos", "--out", f"a new or empty folder; {out} holds something")


def _play(case: Case, out: Path) -> int:
    """Play, judge, and say it; the exit code."""
    outcome = run(play(case, out, _teller()))
    if sys.stderr.isatty():
        click.echo("", err=True)
    outcome.notes.write(out / CLIENTS_FILE)
    found, lines = verdict_of(outcome)
    (out / FIGURES_FILE).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for line in (*screen(found), *lines):
        click.echo(line)
    broken = found["violations_found"]
    click.echo(
        f"{broken} violations; again: simsched chaos {out / CASE_FILE} --out NEW"
        if broken
        else f"nothing broken; {out / FIGURES_FILE} has the figures"
    )
    return 1 if broken or found["failures"] else 0


def verdict_of(outcome: Outcome) -> tuple[dict[str, Any], list[str]]:
    """The figures of a run, and its violations as lines."""
    recordings = read_recordings(recordings_of(outcome))
    system = outcome.system
    by_world = truths(system.deaths, outcome.hits, system.redis.forgot, outcome.notes)
    events = in_order(by_world, *(one.events for one in recordings))
    verdict = judge(
        events, outcome.notes, settings_of(recordings), outcome.ended_ns,
        leases=outcome.leases, running=outcome.running,
    )  # fmt: skip
    lines = told(verdict.violations, outcome.started_ns, VIOLATIONS_SHOWN)
    return figures(outcome, events, verdict), lines


def _teller() -> Tell:
    if not sys.stderr.isatty():
        return lambda _line: None
    return lambda line: click.echo(f"\r{line:78s}", err=True, nl=False)
