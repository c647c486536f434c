"""Instances of two protocol versions in one simulated cell: entries are really written and read."""

from __future__ import annotations

from pathlib import Path

import pytest

from simsched.cases import Case, System, Turn, case_text, read_case
from simsched.errors import ConfigError
from simsched.faults import Fault
from simsched.letters import Letters
from simsched.models.hunted import HuntedWorld, play
from simsched.models.tape import Tape

SAFE = "safe,job_timeout_ms=3000,pending_ms=2000,lease_ms=4000"
TURNS = tuple(
    Turn(client=n % 3, at_ms=150 * n, repeat_after_ms=40 if n % 3 == 0 else -1) for n in range(12)
)


def case_of(versions: tuple[int, ...], *faults: Fault) -> Case:
    system = System(instances=2, versions=versions)
    return Case(policy=SAFE, turns=TURNS, faults=faults, system=system)


@pytest.mark.parametrize("versions", [(), (1, 1), (1, 2), (2, 1), (2, 2)])
def test_every_mixture_answers_everything(
    versions: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each entry in the lower version of the two, once the reader's is known; nothing is broken."""
    written: set[tuple[int, int]] = set()
    write = Letters.write

    def seen(self: Letters, event: object, to: str, reader: int) -> dict[bytes, bytes] | None:
        fields = write(self, event, to, reader)
        assert fields is not None
        written.add((min(self.version, reader), int(fields.get(b"version", b"1"))))
        return fields

    monkeypatch.setattr(Letters, "write", seen)
    assert not play(case_of(versions)).violations
    assert max(said for _, said in written) == min(versions, default=2)
    assert all(wanted == said for wanted, said in written)


def test_who_is_started_again_speaks_the_newest() -> None:
    """A crash in the middle of an upgrade: the instance comes back as the new release."""
    crash = Fault(kind="instance_crash", target="i-0", at_ms=600, for_ms=500)
    case = case_of((1, 1), crash)
    world = HuntedWorld(case, Tape({}))
    world.run()
    assert [hand.version for _, hand in sorted(world.network.hands.items())] == [2, 1]
    assert not play(case).violations


@pytest.mark.parametrize("versions", [(1,), (1, 2, 2), (0, 1), (1, 3)])
def test_versions_that_there_are_not_are_refused(versions: tuple[int, ...], tmp_path: Path) -> None:
    """One for each instance, and only such as are spoken; else one line says what would do."""
    file = tmp_path / "case.toml"
    file.write_text(case_text(case_of(versions)), encoding="utf-8")
    with pytest.raises(ConfigError, match="one for each of 2 instances, 1 to 2"):
        read_case(file)


def test_versions_survive_the_file(tmp_path: Path) -> None:
    """What is written is what is read."""
    file = tmp_path / "case.toml"
    file.write_text(case_text(case_of((1, 2))), encoding="utf-8")
    assert read_case(file) == case_of((1, 2))
