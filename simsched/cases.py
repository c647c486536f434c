"""
A case: one small system, what its clients and nodes do, and what breaks; as a value and a file.

    policy = "published"
    seed = 7

    [system]
    instances = 2
    nodes = 3

    [[turn]]                  # a client speaks
    client = 0
    at_ms = 120
    repeat_after_ms = 35      # and asks again, on another instance

    [[fault]]
    kind = "instance_pause"
    target = "i-0"
    at_ms = 400
    for_ms = 1500

    [tape]                    # replay only: where the run departs from first come, first served
    "redis i-0 REQUEST_LOCK 2" = 3

The same file is played by a simulated world (`hunt replay`) and done to real processes (`chaos`,
which knows no tape and refuses faults within a step). Turns come in the order of the file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from simsched.errors import ConfigError
from simsched.faults import TIME_MAX_MS, Fault, number_of, target_kind
from simsched.findings import INVARIANTS
from simsched.letters import NEWEST, OLDEST
from simsched.presets import parse_policy

SYSTEM_LIMITS: Final = {
    "instances": (1, 100), "nodes": (1, 1_000), "slots": (1, 1_000),
    "service_ms": (0, TIME_MAX_MS), "heartbeat_ms": (1, TIME_MAX_MS), "calm_ms": (0, TIME_MAX_MS),
    "linger_ms": (0, TIME_MAX_MS), "settle_ms": (0, TIME_MAX_MS),
}  # fmt: skip
"""From and to: a slip of the pen must not fill the memory or take for ever."""

TURN_LIMITS: Final = {
    "client": (0, 100_000), "at_ms": (0, TIME_MAX_MS), "audio_ms": (1, 3_600_000),
    "repeat_after_ms": (-1, TIME_MAX_MS),
}  # fmt: skip


class System(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    What there is: sizes, and how clients speak.

    Attributes:
        mode: `utterance` (whole utterances) or `audio_chunk` (100 ms chunks).
        service_ms: how long a node works on one job.
        resumes: clients that lost their instance go on with their session on another one; else
            they begin a new session.
        calm_ms: from then on nothing breaks any more, counted as faults are; 0: nobody says so.
        linger_ms: how long a client waits for its answers after its last word.
        settle_ms: how long the run goes on after the last fault has ended, to show liveness.
        versions: which version of the protocol between instances each of them speaks at first; one
            that is started again speaks the newest, as do all where nothing is said.

    """

    instances: int = 2
    nodes: int = 3
    slots: int = 2
    costs: str = "reference"
    mode: str = "utterance"
    service_ms: int = 300
    heartbeat_ms: int = 2_000
    acknowledges: bool = True
    resumes: bool = True
    calm_ms: int = 0
    linger_ms: int = 20_000
    settle_ms: int = 30_000
    versions: tuple[int, ...] = ()


class Turn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    One utterance of a client.

    Attributes:
        client: who speaks, 0 and up.
        at_ms: when it begins, counted from the start.
        audio_ms: how much is said.
        ends: whether a client that streams says which chunk is the last; else silence cuts.
        repeat_after_ms: the client asks for the same again on another instance after so long;
            -1: never (mode `utterance` only).

    """

    client: int
    at_ms: int
    audio_ms: int = 500
    ends: bool = True
    repeat_after_ms: int = -1


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """
    One run, fully stated.

    Attributes:
        policy: as `parse_policy` reads it.
        seed: of all draws but the tape's.
        invariant: what the case is kept for, "" if it is not known to break anything.
        tape: label -> how far that choice departs from first come, first served; 0 is left out.

    """

    policy: str
    seed: int = 1
    system: System = System()
    turns: tuple[Turn, ...] = ()
    faults: tuple[Fault, ...] = ()
    tape: Mapping[str, int] = {}
    invariant: str = ""
    about: str = ""

    @property
    def events(self) -> int:
        """Faults, what clients and nodes do, and departures from first come, first served."""
        repeats = sum(turn.repeat_after_ms >= 0 for turn in self.turns)
        return len(self.faults) + len(self.turns) + repeats + len(self.tape)


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    policy: str
    seed: int = 1
    invariant: str = ""
    about: str = ""
    system: System = System()
    turn: tuple[Turn, ...] = ()
    fault: tuple[dict[str, Any], ...] = ()
    tape: dict[str, int] = {}


def read_case(path: Path) -> Case:
    """
    The case in a file.

    Raises:
        ConfigError: unreadable, an unknown key, or a value that makes no sense.

    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), "", f"cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), "", f"is no TOML: {error}") from error
    return case_of(table, str(path))


def case_of(table: Mapping[str, object], where: str) -> Case:
    """
    The case that a table says.

    Raises:
        ConfigError: an unknown key or a value that makes no sense.

    """
    try:
        file = msgspec.convert(table, _File)
        faults = tuple(
            _fault(entry, f"{where}: fault {i}") for i, entry in enumerate(file.fault, 1)
        )
    except msgspec.ValidationError as error:
        raise ConfigError(where, "", str(error)) from error
    case = Case(
        policy=file.policy, seed=file.seed, system=file.system, turns=file.turn, faults=faults,
        tape=file.tape, invariant=file.invariant, about=file.about,
    )  # fmt: skip
    _check(case, where)
    return case


def _fault(entry: dict[str, Any], where: str) -> Fault:
    unknown = [name for name in entry if name not in Fault.__struct_fields__]
    if unknown:
        raise ConfigError(where, unknown[0], f"known are {', '.join(Fault.__struct_fields__)}")
    fault = msgspec.convert(entry, Fault)
    fault.check(where)
    return fault


def _check(case: Case, where: str) -> None:
    parse_policy(case.policy, where)
    system = case.system
    for name, (least, most) in SYSTEM_LIMITS.items():
        if not least <= getattr(system, name) <= most:
            raise ConfigError(where, f"system.{name}", f"must be {least} to {most}")
    if case.invariant not in ("", *(one.name for one in INVARIANTS)):
        want = f"one of {', '.join(one.name for one in INVARIANTS)}, not {case.invariant!r}"
        raise ConfigError(where, "invariant", want)
    if system.mode not in ("utterance", "audio_chunk"):
        raise ConfigError(where, "system.mode", f"utterance or audio_chunk, not {system.mode!r}")
    if system.versions and (
        len(system.versions) != system.instances
        or not all(OLDEST <= version <= NEWEST for version in system.versions)
    ):
        want = f"one for each of {system.instances} instances, {OLDEST} to {NEWEST}, or none"
        raise ConfigError(where, "system.versions", want)
    sizes = {"instance": system.instances, "node": system.nodes}
    for fault in case.faults:
        kind = target_kind(fault.target).partition("/")[0]
        if kind in sizes and number_of(fault.target) >= sizes[kind]:
            raise ConfigError(
                where, "target", f"there is no {fault.target}: {kind}s are 0 to {sizes[kind] - 1}"
            )
    for number, turn in enumerate(case.turns, 1):
        for name, (least, most) in TURN_LIMITS.items():
            if not least <= getattr(turn, name) <= most:
                raise ConfigError(f"{where}: turn {number}", name, f"must be {least} to {most}")


def case_text(case: Case) -> str:
    """The case as a file, read back by `read_case` as the same value."""
    lines = [f"policy = {_quoted(case.policy)}", f"seed = {case.seed}"]
    lines += [
        f"{name} = {_quoted(text)}"
        for name in ("invariant", "about")
        if (text := getattr(case, name))
    ]
    lines += ["", "[system]"]
    lines += [
        f"{name} = {_value(value)}" for name, value in msgspec.structs.asdict(case.system).items()
    ]
    for turn in case.turns:
        lines += [
            "",
            "[[turn]]",
            *_different(turn, Turn(client=turn.client, at_ms=turn.at_ms), ("client", "at_ms")),
        ]
    for fault in case.faults:
        plain = Fault(kind=fault.kind, target=fault.target)
        lines += ["", "[[fault]]", *_different(fault, plain, ("kind", "target"))]
    if case.tape:
        lines += [
            "",
            "[tape]",
            *(f"{_quoted(label)} = {case.tape[label]}" for label in sorted(case.tape)),
        ]
    return "\n".join(lines) + "\n"


def _different(value: msgspec.Struct, plain: msgspec.Struct, always: tuple[str, ...]) -> list[str]:
    return [
        f"{name} = {_value(getattr(value, name))}"
        for name in value.__struct_fields__
        if name in always or getattr(value, name) != getattr(plain, name)
    ]


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return _quoted(value) if isinstance(value, str) else str(value)


def _quoted(text: str) -> str:
    # JSON's strings are TOML's, but for DEL, which TOML wants escaped.
    return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")
