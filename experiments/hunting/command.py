"""`simsched hunt`: search, replay a case, keep one as a regression test."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any, Final

import click

from simsched.cases import Case, case_text, read_case
from simsched.errors import ConfigError
from simsched.experiments.hunting.causes import Cause
from simsched.experiments.hunting.coverage import covered, read_hits, table
from simsched.experiments.hunting.draw import SIZES, hunted_policy
from simsched.experiments.hunting.search import Found, Hunt, Tally, search
from simsched.experiments.hunting.shrink import shrink
from simsched.experiments.hunting.telling import (
    findings,
    parting,
    progress,
    replay_command,
    story,
)
from simsched.models.hunted import play
from simsched.models.tape import check_tape
from simsched.presets import parse_policy

KEPT: Final = Path("tests/cases")
SHRUNK_MAX: Final = 12
"""Findings that are shrunk and saved, the most frequent first."""


@click.group(invoke_without_command=True)
@click.option("--policy", default="safe", show_default=True, help="Preset and changes.")
@click.option("--schedules", type=click.IntRange(1), default=1_000, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--jobs", type=click.IntRange(1), help="Processes; all cores if left out.")
@click.option("--time", "limit_s", type=click.FloatRange(0), default=0.0, metavar="SECONDS",
              help="Stop after so long; 0: never.")  # fmt: skip
@click.option("--first", is_flag=True, help="Stop at the first finding.")
@click.option("--size", type=click.Choice([*SIZES, "both"]), default="small", show_default=True)
@click.option("--coverage", is_flag=True, help="Print which faults have hit which steps.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("hunt"), show_default=True,
              help="Folder for cases and hunt.json.")  # fmt: skip
@click.pass_context
def hunt(context: click.Context, /, **asked: Any) -> None:
    """Search fault schedules for one that breaks an invariant; exit code 1 if there is one."""
    if context.invoked_subcommand is None:
        context.exit(_hunt(**asked))


def _hunt(
    policy: str, schedules: int, seed: int, jobs: int | None, limit_s: float, first: bool,
    size: str, coverage: bool, out: Path,
) -> int:  # fmt: skip
    hunted = Hunt(policy=hunted_policy(policy), schedules=schedules, seed=seed, size=size)
    jobs = jobs or os.cpu_count() or 1
    summary = _writable(out / "hunt.json")
    shows = sys.stderr.isatty()

    def tell(tally: Tally, seconds: float) -> None:
        if shows:
            click.echo(
                f"\r{progress(tally, schedules, seconds, hunted.policy)}", err=True, nl=False
            )

    tally, seconds = search(hunted, jobs=jobs, limit_s=limit_s, first=first, tell=tell)
    if shows:
        click.echo("", err=True)
    click.echo(progress(tally, schedules, seconds, hunted.policy))
    _write(summary, _summary(hunted, tally, seconds))
    for line in table(tally.hits, hunted.policy) if coverage else ():
        click.echo(line)
    for line in findings(tally):
        click.echo(line)
    rows = sorted(tally.found.items(), key=lambda row: (-row[1].count, row[0]))
    for number, (cause, found) in enumerate(rows[:SHRUNK_MAX], 1):
        _show(hunted, cause, found, out / f"{cause.invariant}-{number}.toml")
    return 1 if tally.found else 0


def _show(hunted: Hunt, cause: Cause, found: Found, file: Path) -> None:
    case = shrink(hunted.play(found.number)[0], cause)
    _write(file, case_text(case))
    click.echo(f"\n{cause.invariant}: {cause.words}\n{case.events} events, {file}")
    for line in (*story(case), *parting(case, cause)):
        click.echo(line)
    click.echo(replay_command(file))


def _read(file: Path) -> Case:
    case = read_case(file)
    check_tape(case.tape, f"{file}: tape")
    return case


def _writable(file: Path) -> Path:
    """
    A file in a folder that is there now; so that a hunt of hours does not end in an error.

    Raises:
        ConfigError: it cannot be written.

    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    except OSError as error:
        raise _unwritable(file, error) from error
    return file


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(file, error) from error


def _unwritable(file: Path, error: OSError) -> ConfigError:
    return ConfigError(str(file), "", f"cannot be written: {error.strerror or error}")


def _summary(hunted: Hunt, tally: Tally, seconds: float) -> str:
    pairs, possible = covered(tally.hits, hunted.policy)
    summary = {
        "policy": hunted.policy, "seed": hunted.seed, "size": hunted.size,
        "schedules": tally.schedules, "seconds": round(seconds, 1), "events": tally.events,
        "simulated_s": tally.simulated_ns // 10**9, "departures": tally.departures,
        "pairs": pairs, "pairs_possible": possible,
        "hits": [[kind, step, count] for (kind, step), count in sorted(tally.hits.items())],
        "found": [[*cause, one.count, one.number] for cause, one in sorted(tally.found.items())],
    }  # fmt: skip
    return json.dumps(summary, indent=1) + "\n"


@hunt.command("coverage")
@click.argument("file", type=click.Path(path_type=Path), default=Path("hunt/hunt.json"))
def coverage_of(file: Path) -> None:
    """Print which faults have hit which steps in the hunt that wrote FILE (hunt/hunt.json)."""
    for line in table(*read_hits(file)):
        click.echo(line)


@hunt.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--story", "told", is_flag=True, help="Tell the whole run line by line.")
@click.option("--policy", help="Another policy, to see whether it is mended there.")
@click.pass_context
def replay(context: click.Context, file: Path, told: bool, policy: str | None) -> None:
    """Play the case in FILE; exit code 1 if it breaks what it was kept for."""
    case = _read(file)
    if policy:
        parse_policy(policy)
        case = Case(
            policy=hunted_policy(policy), seed=case.seed, system=case.system, turns=case.turns,
            faults=case.faults, tape=case.tape, invariant=case.invariant,
        )  # fmt: skip
    if told:
        for line in story(case, whole=True):
            click.echo(line)
    played = play(case)
    broken = [v for v in played.violations if case.invariant in ("", v.invariant)]
    for violation in broken:
        click.echo(f"{violation.invariant} at {violation.at_ns / 1e6:.1f} ms: {violation.text}")
    if not broken:
        click.echo(f"nothing broken ({case.events} events, digest {played.digest[:12]})")
    context.exit(1 if broken else 0)


@hunt.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--as", "name", help="Its name; else the file's.")
@click.option("--to", "folder", type=click.Path(path_type=Path), default=KEPT, show_default=True)
def keep(file: Path, name: str | None, folder: Path) -> None:
    """Make the case in FILE a regression test: it must go on breaking under its policy only."""
    case = _read(file)
    if not any(v.invariant == case.invariant for v in play(case).violations):
        raise ConfigError(str(file), "invariant", "the case breaks nothing: it proves nothing")
    wanted = re.sub(r"[^\w-]", "-", name or file.stem)
    kept = _writable(folder / f"{wanted}.toml")
    text = case_text(case)
    if kept.read_bytes() not in (b"", text.encode()):
        raise ConfigError(str(kept), "", "is another case: give it a name of its own with --as")
    _write(kept, text)
    click.echo(f"{kept}: played by tests/models/test_cases.py")
