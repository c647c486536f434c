"""Nodes: the lifecycle is its table, and marks run out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from simsched.nodes import (
    TRANSITIONS,
    Health,
    HealthLimits,
    InstalledService,
    NodeRecord,
    Signal,
    Trigger,
    advance,
    is_healthy,
    marked_unavailable,
)
from simsched.units import SECOND

ASR = InstalledService(service_id="whisper", type="asr")
NODE = NodeRecord(node_id="n", ordinal=0, registered_ns=0, last_heartbeat_ns=0, services=(ASR,))
SICK = replace(NODE, services=(replace(ASR, status="error"),))


def beat(record: NodeRecord, at_s: int) -> NodeRecord:
    return advance(record, Signal.HEARTBEAT, at_s * SECOND).record


def test_one_healthy_heartbeat_makes_a_registering_node_ready() -> None:
    """A node is ready after its first healthy heartbeat, with the reason named."""
    moved = advance(NODE, Signal.HEARTBEAT, SECOND)
    assert moved.record.health is Health.READY
    assert moved.reason == "health_check_passed"


def test_a_ready_node_degrades_at_the_third_failure_in_a_row_and_one_success_heals() -> None:
    """Two failures are forgiven, a success between them resets the count."""
    node = beat(NODE, 1)
    sick = replace(node, services=SICK.services)
    twice = beat(beat(sick, 2), 3)
    assert twice.health is Health.READY
    healed = beat(replace(twice, services=NODE.services), 4)
    assert healed.failures_in_a_row == 0
    thrice = beat(twice, 4)
    assert thrice.health is Health.DEGRADED
    assert beat(replace(thrice, services=NODE.services), 5).health is Health.READY


@pytest.mark.parametrize(("at_s", "health"), [(60, Health.REGISTERING), (61, Health.DEGRADED)])
def test_warm_up_has_a_limit(at_s: int, health: Health) -> None:
    """A node that never gets healthy is degraded after more than 60 s, not at 60 s."""
    late = replace(SICK, last_heartbeat_ns=at_s * SECOND)
    assert advance(late, Signal.TICK, at_s * SECOND).record.health is health


@pytest.mark.parametrize(("at_s", "health"), [(45, Health.READY), (46, Health.OFFLINE)])
def test_silence_means_offline(at_s: int, health: Health) -> None:
    """A node is offline when its last heartbeat is older than 45 s."""
    node = replace(NODE, health=Health.READY)
    assert advance(node, Signal.TICK, at_s * SECOND).record.health is health


def test_a_heartbeat_does_not_revive_but_a_registration_does() -> None:
    """Offline ends by registering again or by another instance's word, never by a heartbeat."""
    gone = advance(replace(NODE, health=Health.READY), Signal.SOCKET_CLOSED, SECOND).record
    assert gone.health is Health.OFFLINE
    assert beat(gone, 2).health is Health.OFFLINE
    assert advance(gone, Signal.REGISTER, SECOND).record.health is Health.REGISTERING
    assert advance(gone, Signal.MERGE_READY, SECOND).record.health is Health.READY


@given(st.lists(st.tuples(st.sampled_from(Signal), st.booleans(), st.integers(0, 90)), max_size=30))
def test_every_change_of_state_is_a_row_of_the_table(
    story: list[tuple[Signal, bool, int]],
) -> None:
    """Whatever happens, a state changes only as the table says, with that row's reason."""
    record, now = NODE, 0
    for signal, healthy, seconds in story:
        now += seconds * SECOND
        services = NODE.services if healthy else SICK.services
        moved = advance(replace(record, services=services), signal, now)
        rows = {(old, trigger.value): new for (old, trigger), new in TRANSITIONS.items()}
        if moved.reason:
            assert rows[record.health, moved.reason] is moved.record.health
        else:
            assert moved.record.health is record.health
        record = moved.record


def test_every_state_but_offline_can_go_offline() -> None:
    """Silence and a closed socket take any connected node offline."""
    for health in Health:
        for trigger in (Trigger.SILENT, Trigger.DISCONNECTED):
            expected = None if health is Health.OFFLINE else Health.OFFLINE
            assert TRANSITIONS.get((health, trigger)) is expected


@pytest.mark.parametrize(
    "broken",
    [{"has_gpu": False}, {"gpu_percent": 101.0}, {"services": ()}, {"services": SICK.services}],
)
def test_the_health_check_wants_gpu_and_running_core_services(broken: dict[str, object]) -> None:
    """Each missing part alone fails the check."""
    assert is_healthy(NODE)
    assert not is_healthy(replace(NODE, **broken))


def test_where_cpus_will_do_a_node_without_a_gpu_gets_ready() -> None:
    """The demand for a GPU can be lifted; every other part of the check stays."""
    limits = HealthLimits(needs_gpu=False)
    plain = replace(NODE, has_gpu=False)
    assert advance(plain, Signal.HEARTBEAT, SECOND, limits).record.health is Health.READY
    assert advance(plain, Signal.HEARTBEAT, SECOND).record.health is Health.REGISTERING
    assert not is_healthy(replace(plain, services=SICK.services), needs_gpu=False)


def test_marks_resolve_to_types_and_run_out() -> None:
    """A mark knows which type it blocks; the next mark drops those that have run out."""
    once = marked_unavailable(NODE, "whisper", "1", now_ns=0, until_ns=60)
    assert [(m.type, m.until_ns) for m in once.view().unavailable] == [("asr", 60)]
    again = marked_unavailable(once, "elsewhere", "", now_ns=60, until_ns=120)
    assert [(m.type, m.until_ns) for m in again.unavailable] == [("", 120)]


def test_health_limits_are_positive() -> None:
    """A limit of zero is refused."""
    with pytest.raises(ValueError, match="positive"):
        HealthLimits(failures_max=0)
