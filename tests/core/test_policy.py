"""The policy: presets are data, changes are read strictly, and every field is read by somebody."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import simsched
from simsched.errors import ConfigError
from simsched.policy import FIELDS, PER_CELL, Policy
from simsched.presets import PRESETS, PROPOSALS, PUBLISHED, STAGES, differences, parse_policy


def test_every_field_is_read_somewhere_in_the_core_or_the_simulated_world() -> None:
    """A switch that nothing reads would be a lie in every study."""
    room = Path(simsched.__file__).parent
    sources = [
        path.read_text(encoding="utf-8")
        for folder in (room, room / "models")
        for path in sorted(folder.glob("*.py"))
        if path.name != "policy.py"
    ]
    read = re.compile(r"policy(?:_of\([\w.]+\))?\.(\w+)")
    unread = set(FIELDS) - {name for text in sources for name in read.findall(text)}
    assert unread == set()


def test_each_proposal_differs_from_the_base_in_its_fields_only() -> None:
    """published+N changes what the catalogue of proposals says; stages add them up."""
    for name, changes in PROPOSALS.items():
        changed = differences(PRESETS["published"], PRESETS[f"published+{name}"])
        assert set(changed) == set(changes)
    for stage, proposals in STAGES.items():
        changed = differences(PRESETS["published"], PRESETS[stage])
        assert set(changed) == {field for name in proposals for field in PROPOSALS[name]}
    assert {f: getattr(PRESETS["published"], f) for f in PUBLISHED} == PUBLISHED


def test_a_policy_that_changes_nothing_is_its_base() -> None:
    """Equal values, equal policies."""
    assert parse_policy("safe") == Policy() == parse_policy("safe,pending_ms=10000")
    assert set(PER_CELL) <= set(FIELDS)


@given(st.sampled_from(sorted(PRESETS)), st.sampled_from(sorted(FIELDS)), st.data())
def test_any_field_can_be_changed_and_only_it_changes(
    preset: str, name: str, data: st.DataObject
) -> None:
    """`preset,field=value` for every field and value."""
    choices = FIELDS[name].metadata["choices"]
    values = st.integers(0, 10**6) if choices is int else st.sampled_from(choices)
    value = data.draw(values)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    changed = parse_policy(f"{preset},{name}={text}")
    assert getattr(changed, name) == value
    assert set(differences(PRESETS[preset], changed)) <= {name}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("saef", "did you mean safe?"),
        ("safe,dedupp=job", "did you mean dedup?"),
        ("safe,dedup=jobs", "one of job, attempt, not 'jobs'"),
        ("safe,pending_ms=-1", "a whole number of 0 or more"),
        ("safe,job_gc=1", "one of True, False"),
        ("safe,job_gc", "field=value"),
    ],
)
def test_a_wrong_policy_is_refused_with_what_would_be_right(text: str, says: str) -> None:
    """One clear line."""
    with pytest.raises(ConfigError, match=says.replace("?", r"\?")):
        parse_policy(text)
