"""Any choice of the report's variants gives a page."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from simsched.cli import main

HEAD = """
name = "part"
question = "A part of the report"
answers = "report"
replications = 2
[scenario]
costs = "report"
instances = 1
nodes = 20
horizon_s = 3
load = {load}
[scenario.workload]
arrivals = {{ kind = "poisson", rate_per_s = 1 }}
mode = "utterance"
languages = [{{ source = "zh", target = "en" }}]
[warmup]
end_s = 0
"""


def page(tmp_path: Path, variants: str, load: float = 0.3) -> str:
    study = tmp_path / "part.toml"
    study.write_text(HEAD.format(load=load) + variants)
    asked = ["experiment", "run", str(study), "--out", str(tmp_path / "run"), "--jobs", "1"]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 0, result.output
    return (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_a_report_needs_something_to_compare_with(tmp_path: Path) -> None:
    """Without `published` there is nothing to say: one line, no traceback."""
    study = tmp_path / "part.toml"
    variant = '[[variant]]\nname = "phase1/safe"\npolicy = "safe"\n'
    study.write_text(HEAD.format(load=0.3) + variant)
    asked = ["experiment", "run", str(study), "--out", str(tmp_path / "run"), "--jobs", "1"]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 2
    assert "phase1/published or phase2/published" in result.output


@pytest.mark.parametrize(
    "policies", [["published"], ["published", "safe"], ["published", "stage3"]]
)
def test_a_part_of_the_report_is_a_page_too(tmp_path: Path, policies: list[str]) -> None:
    """A variant that was not run leaves a dash, not a traceback."""
    variants = "".join(
        f'[[variant]]\nname = "phase1/{policy}"\npolicy = "{policy}"\n' for policy in policies
    )
    assert "</html>" in page(tmp_path, variants)


def test_an_overload_is_said_on_the_page(tmp_path: Path) -> None:
    """Where work piles up, the page gives a growth beside the means that mean nothing."""
    variants = '[[variant]]\nname = "phase1/published"\npolicy = "published"\n'
    assert "Overloaded" in page(tmp_path, variants, load=3.0)
