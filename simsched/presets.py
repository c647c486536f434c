"""
The presets: policies that have a name, and how people write one of their own.

Presets are data: a preset is a base preset and the fields in which it differs. `published` is the
report's call tree with the reference's state rules, `shipped` the reference's own code, `safe` the
design that breaks no invariant; `published+N` is one proposal of the report, `published+Ns` the
same in a safe form, `stageN` its road map.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from typing import Final

from simsched.errors import ConfigError
from simsched.policy import FIELDS, Policy, check_value

PUBLISHED: Final[dict[str, object]] = {
    "snapshot_reads": "each",
    "snapshot_copy": "deep",
    "config_reads": "each",
    "job_scheme": "phases",
    "binding_reads": "every",
    "request_guard": "lock",
    "lock_busy": "fall_through",
    "job_key": "after",
    "selection": "scan",
    "pool_affinity": "sticky",
    "preferred_fallback": False,
    "heed_unavailable": False,
    "slots": "counter",
    "phase1_reserves": False,
    "heartbeat_reserved": "resets",
    "slot_release": "counters",
    "pending": "expire",
    "node_loss": "timeout",
    "job_gc": False,
    "group_updates": "separate",
    "session_reads": "each",
    "dedup": "job",
    "dedup_recorded": "before",
    "stale_results": "deliver",
    "result_order": "fcfs",
    "node_failure": "report",
    "result_routing": "binding",
    "buffer_clock": "each",
    "pause_cut": "any",
    "group_reads": "separate",
    "group_reads_when": "always",
    "store_down": "slow",
}

SHIPPED: Final[dict[str, object]] = {
    **PUBLISHED,
    "snapshot_copy": "pointer",
    "capability_reads": "sequential",
    "second_selection": True,
    "phase1_reserves": True,
    "language_match": "exact_set",
    "degraded_selectable": True,
    "failover_lock": "across_store",
    "finalize_error": "wedge",
    "room_results": "overwrite",
    "result_routing": "session_owner",
    "no_text_terminal": False,
    "group_reads_when": "pause",
    "tts_gate": "reference",
    "audio_clock": "estimate",
    "session_close": "drop",
    "first_chunk_stamp": "session",
    "backpressure": False,
    "stream_connection": "shared",
    "connections": 1,
    "remote_dispatch": "lossy",
    "rerun_counters": "added",
}

PROPOSALS: Final[dict[str, dict[str, object]]] = {
    "1": {"snapshot_reads": "once"},
    "2": {"binding_reads": "cached"},
    "3": {"buffer_clock": "once_stale"},
    "4": {"group_updates": "merged"},
    "5": {"session_lock": "read_write"},
    "6": {"caches": "ttl"},
    "1s": {"snapshot_reads": "once"},
    "2s": {"binding_reads": "recheck"},
    "3s": {"buffer_clock": "local"},
    "4s": {"group_updates": "merged"},
    "5s": {"session_lock": "read_write"},
    "6s": {"caches": "versioned"},
}
"""What each proposal of the report's section 5 changes, as written and (`s`) in a safe form."""

STAGES: Final[dict[str, tuple[str, ...]]] = {
    "stage1": ("1", "2"),
    "stage2": ("1", "2", "3", "4"),
    "stage3": ("1", "2", "3", "4", "5", "6"),
}
"""The report's road map (section 6), cumulative."""


def _merged(proposals: tuple[str, ...]) -> dict[str, object]:
    merged = dict(PUBLISHED)
    for proposal in proposals:
        merged |= PROPOSALS[proposal]
    return merged


PRESETS: Final[dict[str, Policy]] = {
    "safe": Policy(),
    "published": Policy(**PUBLISHED),  # type: ignore[arg-type]
    "shipped": Policy(**SHIPPED),  # type: ignore[arg-type]
    **{
        f"published+{name}": Policy(**_merged((name,)))  # type: ignore[arg-type]
        for name in PROPOSALS
    },
    **{
        stage: Policy(**_merged(proposals))  # type: ignore[arg-type]
        for stage, proposals in STAGES.items()
    },
}


def parse_policy(text: str, where: str = "policy") -> Policy:
    """
    Read a policy as people write it: a preset, then changes: `safe,group_updates=separate`.

    Raises:
        ConfigError: an unknown preset or field, or a value the field does not take.
    """
    preset, *changes = (part.strip() for part in text.split(","))
    if preset not in PRESETS:
        near = get_close_matches(preset, PRESETS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(where, preset, f"no such policy{hint} (simsched policy list shows them)")
    overrides: dict[str, object] = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals:
            raise ConfigError(where, change, "a change is written field=value")
        overrides[name.strip()] = _typed(name.strip(), value.strip(), where)
    return replace(PRESETS[preset], **overrides)  # type: ignore[arg-type]


def _typed(name: str, text: str, where: str) -> object:
    known = FIELDS.get(name)
    choices = known.metadata["choices"] if known else ()
    value: object = text
    if choices is int and text.isdigit():
        value = int(text)
    elif choices == (True, False):
        value = {"true": True, "false": False}.get(text.lower(), text)
    check_value(name, value, where)
    return value


def differences(one: Policy, other: Policy) -> dict[str, tuple[object, object]]:
    """The fields in which two policies differ, in the order of the catalogue."""
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in FIELDS}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
