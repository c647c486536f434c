"""
The command `simsched`.

Thin: it reads options, calls what does the work, prints. What a caller can mend is said in one line
on standard error with exit code 2; heavy packages are imported by the commands that need them.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click

from simsched.errors import ConfigError, SimschedError

INTERRUPTED: Final = 130
"""128 + SIGINT, as shells have it."""


_ELSEWHERE: Final = {
    **dict.fromkeys(
        ("config", "drain", "load", "node", "serve", "talk", "why"), "simsched.live.commands"
    ),
    "chaos": "simsched.experiments.chaos.command",
    "hunt": "simsched.experiments.hunting.command",
}
"""Commands that other rooms hold, and where."""


class _Commands(click.Group):
    """A group that says which of its commands was probably meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            from simsched.models.fields import meant

            name = f"{ctx.command_path} {args[0]}"
            raise SimschedError(f"unknown command {name!r}; {meant(args[0], known)}")
        return super().resolve_command(ctx, args)


class _Door(_Commands):
    """
    Turns errors on purpose into one line and exit code 2, Ctrl-C into one and 130.

    The commands of the live world are fetched when they are asked for.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(import_module(_ELSEWHERE[cmd_name]), cmd_name)
        return command

    def main(  # type: ignore[override]  # click has two overloads for one switch
        self, args: Sequence[str] | None = None, *, standalone_mode: bool = True, **extra: Any
    ) -> Any:
        try:
            code = super().main(args, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = error.exit_code
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            path = context.command_path if context else "simsched"
            text = " ".join(error.format_message().split()).rstrip(".")
            click.echo(f"simsched: {text} (see {path} --help)", err=True)
            code = 2
        except click.Abort:
            code = _interrupted()
        if standalone_mode:
            sys.exit(code)
        return code

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SimschedError as error:
            click.echo(f"simsched: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            ctx.exit(_interrupted())
        except BrokenPipeError:
            ctx.exit(0)


def _interrupted(text: str = "interrupted") -> int:
    """Say so, once; whoever presses again while everything ends is not answered."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    click.echo(f"simsched: {text}", err=True)
    return INTERRUPTED


@click.group(cls=_Door, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="simsched")
def main() -> None:
    """One scheduling core for real-time speech translation, simulated and live."""


@main.group(cls=_Commands)
def experiment() -> None:
    """Studies: run them, read them, write your own."""


@experiment.command("list")
def list_studies() -> None:
    """The studies that come along."""
    from simsched.experiments.study import Study, built_in

    for name in built_in():
        click.echo(f"{name:<14} {Study.load(name).question}")


@experiment.command("run")
@click.argument("study")
@click.option("--out", type=click.Path(path_type=Path), help="Run directory (runs/STUDY-SEED).")
@click.option("--seed", type=int, help="Root of all randomness, instead of the study's.")
@click.option("--replications", type=int, help="Independent runs of every variant.")
@click.option("--jobs", type=int, help="Worker processes; all cores if left out.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a key.")
@click.option("--quick", is_flag=True, help="The study's rougher, faster form.")
@click.option("--lang", type=click.Choice(["en", "zh"]), default="en", show_default=True)
@click.option("--cluster", metavar="ADDRESS", help="Run on a Dask cluster.")
@click.option("--check", is_flag=True, help="Run twice, name the first event that differs.")
@click.option("--ties", type=click.Choice(["fifo", "shuffle"]), default="fifo", show_default=True)
def run_study(study: str, check: bool, **given: Any) -> None:
    """Run STUDY: the name of one that comes along, or a file."""
    from simsched.experiments.progress import progress_for_terminal
    from simsched.experiments.run_study import RunOptions, default_out, run_to_directory

    options = RunOptions(**given)
    loaded = options.study(study)
    out = options.out or default_out(loaded)
    command = options.command(study, loaded, out)
    try:
        with progress_for_terminal() as progress:
            run = run_to_directory(loaded, out, options, command, progress)
    except KeyboardInterrupt:
        from simsched.experiments.finished import FOLDER

        kept = (out / FOLDER).is_dir() and any((out / FOLDER).iterdir())
        text = f"what was finished is in {out}; to go on" if kept else "nothing was kept; to repeat"
        sys.exit(_interrupted(f"interrupted; {text}: {command}"))
    _print_run(out)
    if check:
        from simsched.experiments.check import check_study

        check_study(loaded, run, options)
        click.echo("checked: a second run, with another hash seed, gave the same digests")


@experiment.command()
@click.argument("directory", type=click.Path(path_type=Path))
def show(directory: Path) -> None:
    """A short table of the run in DIRECTORY."""
    _print_run(directory)


@experiment.command()
@click.argument("one", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path))
def compare(one: Path, other: Path) -> None:
    """What differs between two run directories, each difference with its interval."""
    from simsched.experiments.comparing import compare_runs
    from simsched.experiments.loading import load_run

    rows = compare_runs(load_run(one), load_run(other))
    _print_table(["variant", "metric", str(one), str(other), "difference"], rows)


@experiment.command()
@click.argument("file", type=click.Path(path_type=Path))
def new(file: Path) -> None:
    """Write FILE: a study with every key explained, ready to run."""
    from simsched.experiments.study import template

    if file.suffix != ".toml":
        raise ConfigError("new", str(file), "a study file ends in .toml")
    try:
        with file.open("x", encoding="utf-8") as text:
            text.write(template())
    except FileExistsError:
        raise ConfigError("new", str(file), "is there already: choose another name") from None
    except OSError as error:
        raise ConfigError("new", str(file), f"cannot be written: {error.strerror}") from None
    click.echo(f"{file}: run it with\n  simsched experiment run {file}")


@experiment.command()
@click.option("--speakers", type=int, required=True, help="Speakers at the same time.")
@click.option("--p95", type=float, required=True, metavar="MS", help="Bound of the latency.")
@click.option("--policy", default="safe", show_default=True, help="Preset and changes.")
@click.option("--costs", default="reference", show_default=True, help="Cost model, or its file.")
@click.option("--metric", default="create_job_ms", show_default=True, help="The latency.")
@click.option("--seed", type=int, default=1, show_default=True, help="Root of all randomness.")
@click.option("--replications", type=int, default=20, show_default=True, help="At most, a probe.")
def size(speakers: int, p95: float, **asked: Any) -> None:
    """How many nodes and instances it takes."""
    find_size = import_module("simsched.experiments.size").size
    click.echo(find_size(speakers=speakers, p95_ms=p95, **asked))


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
def canary(directory: Path) -> None:
    """Compare the canary's sessions with the others' in the recording in DIRECTORY."""
    from simsched.experiments import canary as comparison

    found = comparison.compare(directory)
    _print_table(["metric", "base", "canary", "canary - base", "verdict"], comparison.table(found))
    click.echo(f"\n{comparison.overall(found)}")


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--job", metavar="ID", help="Only what belongs to this job.")
@click.option("--out", metavar="FILE", help="File to write (DIRECTORY/trace.json); -: to stdout.")
@click.option("--variant", metavar="NAME", help="Variant of the run; else its first.")
@click.option("--replication", type=int, default=0, show_default=True, help="Replication of it.")
def trace(directory: Path, out: str | None, **given: Any) -> None:
    """Draw the run or recording in DIRECTORY, for ui.perfetto.dev or chrome://tracing."""
    from simsched.experiments.trace import Trace, write_trace

    written = write_trace(Trace(directory, **given), out, sys.stdout.buffer)
    what = f"variant {written.variant!r}, replication {written.replication}"
    target = "stdout" if written.path is None else f"{written.path}"
    text = f"{target}: {written.events} events of {what}"
    click.echo(text, err=written.path is None)


@main.group(cls=_Commands)
def policy() -> None:
    """Policies: what they do, and how they differ."""


@policy.command("list")
def list_policies() -> None:
    """Every preset, and in how many fields it differs from `safe`."""
    from simsched.presets import PRESETS, differences

    for name, preset in PRESETS.items():
        count = len(differences(PRESETS["safe"], preset))
        click.echo(f"{name:<14} {count or 'no':>3} fields differ from safe")


@policy.command("show")
@click.argument("name")
@click.argument("other", required=False)
def show_policy(name: str, other: str | None) -> None:
    """Every field of a policy; with OTHER, those in which the two differ."""
    from simsched.policy import FIELDS
    from simsched.presets import parse_policy

    if other is not None:
        _print_differences(name, other)
        return
    shown = parse_policy(name, "policy show")
    for field, entry in FIELDS.items():
        cell = "cell" if entry.metadata["cell"] else "session"
        value = getattr(shown, field)
        click.echo(f"{field:<20} {value!s:<14} per {cell:<8} {entry.metadata['doc']}")


@policy.command("compare")
@click.argument("name")
@click.argument("other")
def compare_policies(name: str, other: str) -> None:
    """The fields in which two policies differ."""
    _print_differences(name, other)


def _print_differences(name: str, other: str) -> None:
    from simsched.policy import FIELDS
    from simsched.presets import differences, parse_policy

    found = differences(parse_policy(name, "policy"), parse_policy(other, "policy"))
    rows = [
        [field, str(mine), str(theirs), str(FIELDS[field].metadata["doc"])]
        for field, (mine, theirs) in found.items()
    ]
    _print_table(["field", name, other, "what it chooses"], rows)


def _print_run(directory: Path) -> None:
    from simsched.experiments.loading import load_run
    from simsched.experiments.overloads import overloads_in
    from simsched.experiments.run_tables import tables_of

    run = load_run(directory)
    tables = tables_of(run.manifest["study"]["answers"])
    overloads = overloads_in(run)
    summary = run.summary
    rows = []
    for name in (entry["name"] for entry in run.manifest["study"]["variants"]):
        variant = summary["variants"][name]
        metrics = variant["metrics"]
        broken = {key: count for key, count in variant["violations"].items() if count}
        cells = [_estimate(metrics.get(metric)) for metric in tables.metrics]
        if name in overloads:
            cells = ["overload"] * len(cells)
        rows.append([name, *cells, ", ".join(f"{k}: {v}" for k, v in broken.items()) or "none"])
    _print_table(["variant", *tables.metrics, "violations"], rows)
    for name, text in tables.readings(summary["verdicts"]).items():
        click.echo(f"read as  {name}: {text}")
    for name, over in overloads.items():
        click.echo(f"overload  {name}: {over.text()}")
    if summary["verdicts"]:
        click.echo()
        _print_table(list(tables.head), [tables.cells(row) for row in summary["verdicts"]])
    click.echo(f"\ndigest  {summary['digest']}")
    click.echo(f"report  {run.report}")
    click.echo(f"repeat  {run.manifest['command']}")


def _estimate(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "-"
    from simsched.experiments.run_tables import with_interval

    return with_interval(entry["estimate"], entry["half_width"])


def _print_table(head: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
