"""What a study may rely on, through the command line: variants stay apart, ties do not decide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from simsched.cli import main

STUDY = """
seed = 7
replications = REPLICATIONS
[scenario]
costs = "report"
load = 0.5
nodes = 10
sessions = 12
horizon_s = 120
[scenario.workload]
mode = "utterance"
utterances = 3
speech = { kind = "lognormal", mean_s = 2, scv = 0.5, most_s = 6 }
[[variant]]
name = "base"
policy = "published"
[[variant]]
name = "one snapshot"
base = "base"
policy = "published+1"
"""
SAME = '[[variant]]\nname = "under another name"\nbase = "base"\n'
FURTHER = (
    '[[variant]]\nname = "a stranger"\npolicy = "safe"\nnodes = 3\ninstances = 2\nload = 0.2\n'
)


def summary_of(folder: Path, text: str, *words: str, replications: int = 2) -> dict[str, Any]:
    """Run a study from a file, as a user does, and read its numbers."""
    folder.mkdir()
    file = folder / "mine.toml"
    file.write_text(text.replace("REPLICATIONS", str(replications)))
    command = ["experiment", "run", str(file), "--jobs", "1", "--out", str(folder / "run"), *words]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads((folder / "run" / "summary.json").read_bytes())
    return found


def test_a_further_variant_changes_no_others_numbers(tmp_path: Path) -> None:
    """Wherever it stands in the file, whatever its base and its load."""
    alone = summary_of(tmp_path / "alone", STUDY)
    first, variants = STUDY.split("[[variant]]", 1)
    before = summary_of(tmp_path / "before", f"{first}{FURTHER}[[variant]]{variants}")
    after = summary_of(tmp_path / "after", STUDY + FURTHER + SAME)

    for more in (before, after):
        kept = {name: more["variants"][name] for name in alone["variants"]}
        assert kept == alone["variants"]
        assert len(more["variants"]) > len(kept)
        assert more["digest"] != alone["digest"]
    judged = {row["variant"]: row for row in alone["verdicts"]}
    assert {r["variant"]: r for r in after["verdicts"]}["one snapshot"] == judged["one snapshot"]


def test_a_variant_that_changes_nothing_is_its_base_to_the_byte(tmp_path: Path) -> None:
    """Another name, the same digest, the same numbers, and a saving of exactly nothing."""
    found = summary_of(tmp_path / "run", STUDY + SAME)

    variants = found["variants"]
    assert variants["under another name"] == variants["base"]
    assert variants["one snapshot"]["digest"] != variants["base"]["digest"]
    row = next(row for row in found["verdicts"] if row["variant"] == "under another name")
    assert (row["saves_ms"], row["half_width_ms"], row["verdict"]) == (0, 0, "no difference")


def test_shuffled_ties_give_answers_within_their_intervals(tmp_path: Path) -> None:
    """
    The same speakers, simultaneous events in another order: every mean well within its interval.

    Both meet the same chance, so what is left is the order of ties alone: less than a tenth of the
    interval that the speakers make.
    """
    fifo = summary_of(tmp_path / "fifo", STUDY, replications=6)
    shuffled = summary_of(tmp_path / "shuffle", STUDY, "--ties", "shuffle", replications=6)

    for name, variant in fifo["variants"].items():
        other = shuffled["variants"][name]
        assert other["digest"] != variant["digest"]
        for metric in ("create_job_ms", "job_result_ms", "end_to_end_ms", "sojourn_ms"):
            one, two = variant["metrics"][metric], other["metrics"][metric]
            gap = abs(one["estimate"] - two["estimate"])
            assert gap <= one["half_width"] / 10, (name, metric)
    one, two = fifo["verdicts"][0], shuffled["verdicts"][0]
    assert one["verdict"] == two["verdict"] == "saves"
    assert abs(one["saves_ms"] - two["saves_ms"]) <= one["half_width_ms"]
