"""
The full search: `python -m tests.mutants --schedules 6000 --seed 1 [--only NAME] [--record]`.

Prints one line per mutant; exit code 1 if one was not found. `--record` shrinks what was found and
writes it to `cases/`, where the fast test reads it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import click

from tests.mutants.searching import PLAYS_MAX, SCHEDULES, SEED, look, open_causes
from tests.mutants.table import MUTANTS


@click.command()
@click.option("--schedules", type=click.IntRange(1), default=SCHEDULES, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=SEED, show_default=True)
@click.option("--only", "names", multiple=True, type=click.Choice(list(MUTANTS)))
@click.option(
    "--plain",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Schedules played without a mutant first: their causes do not count.",
)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True)
@click.option("--record", is_flag=True, help="Write the shrunk cases.")
@click.option(
    "--plays",
    type=click.IntRange(1),
    default=PLAYS_MAX,
    show_default=True,
    help="Smaller candidates that are tried for a case that is recorded.",
)
def main(
    schedules: int,
    seed: int,
    names: Sequence[str],
    plain: int,
    jobs: int,
    record: bool,
    plays: int,
) -> None:
    """Look for every mutant, each from the first schedule on."""
    known = open_causes(plain, seed)
    one = partial(look, schedules=schedules, seed=seed, known=known, plays=plays * record)
    click.echo(f"{'mutant':32s}  found  invariant     cause")
    missing = 0
    asked = names or list(MUTANTS)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for line, found in map(one, asked) if jobs == 1 else pool.map(one, asked):
            click.echo(line)
            missing += not found
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
