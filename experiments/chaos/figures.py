"""A chaos run in figures: counts, recovery times and the verdict, as JSON and on one screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from simsched.experiments.chaos import recovery_times as times
from simsched.experiments.chaos.judging import Verdict
from simsched.experiments.chaos.recovery_times import Spread
from simsched.experiments.chaos.run import Outcome
from simsched.faults import target_kind
from simsched.telemetry import Event
from simsched.units import MS

VIOLATIONS_KEPT: Final = 200

SLACK_NS: Final = 300 * MS
"""A fault is by itself if no other one was within so long of its beginning."""


def figures(outcome: Outcome, events: Sequence[Event], verdict: Verdict) -> dict[str, Any]:
    """Everything that is worth keeping of a run."""
    system, notes = outcome.case.system, outcome.notes
    return {
        "policy": outcome.case.policy,
        "seed": outcome.case.seed,
        "instances": system.instances,
        "nodes": system.nodes,
        "clients": len({turn.client for turn in outcome.case.turns}),
        "seconds": round((outcome.ended_ns - outcome.started_ns) / 1e9, 1),
        "faults": faults_done(outcome),
        "timeline": [
            {"kind": hit.fault.kind, "victim": hit.victim, "began_ns": hit.began_ns,
             "ended_ns": hit.ended_ns}
            for hit in outcome.hits
        ],
        "started_ns": outcome.started_ns,
        "redis_writes_lost": outcome.system.redis.losses,
        "utterances": verdict.utterances,
        "answers_lost_on_the_way": verdict.lost_on_the_way,
        "reconnects": len(notes.moved),
        "sessions_resumed": sum(one.before == one.after for one in notes.moved),
        "sessions_begun_anew": sum(one.before != one.after for one in notes.moved),
        "jobs": verdict.jobs,
        "leases_at_end": outcome.held_at_end,
        "leases_leaked": outcome.leases,
        "nodes_still_running": {k: v for k, v in outcome.running.items() if v},
        "recovery_ms": {name: one._asdict() for name, one in recovery(outcome, events).items()},
        "checked": verdict.checked,
        "failures": outcome.failures,
        "violations": [
            {
                "invariant": one.invariant, "subject": one.subject, "text": one.text,
                "at_ms": round((one.at_ns - outcome.started_ns) / 1e6, 1),
                "instance": one.instance,
            }
            for one in verdict.violations[:VIOLATIONS_KEPT]
        ],
        "violations_found": len(verdict.violations),
    }  # fmt: skip


def faults_done(outcome: Outcome) -> dict[str, int]:
    """How often each kind was done, links by their sort."""
    counts = Counter(f"{hit.fault.kind} {target_kind(hit.fault.target)}" for hit in outcome.hits)
    return dict(sorted(counts.items()))


def recovery(outcome: Outcome, events: Sequence[Event]) -> dict[str, Spread]:
    """The recovery times by what had broken."""
    lives = times.attempts(events)
    closing = [hit for hit in outcome.hits if times.is_closing(hit)]
    hangs = [hit for hit in outcome.hits if times.is_hang(hit)]
    by_itself = times.alone(outcome.hits, SLACK_NS)
    outages = outcome.system.redis.outages
    return {
        "closed socket to re-dispatch": times.spread_of(times.sent_again(lives, closing)),
        "the same, nothing else broken": times.spread_of(
            times.sent_again(lives, [hit for hit in closing if hit in by_itself])
        ),
        "hang or partition to re-dispatch": times.spread_of(times.sent_again(lives, hangs)),
        "instance death to client resumed": times.spread_of(
            times.resumed(outcome.system.deaths, outcome.notes.moved)
        ),
        "Redis away to first claim": times.spread_of(
            times.first_claims(events, outages, since_back=False)
        ),
        "Redis back to first claim": times.spread_of(
            times.first_claims(events, outages, since_back=True)
        ),
    }


def screen(found: dict[str, Any]) -> list[str]:
    """One screen of it."""
    faults = found["faults"]
    utterances = found["utterances"]
    lines = [
        f"{found['seconds']} s, {found['instances']} instances, {found['nodes']} nodes, "
        f"{found['clients']} clients, policy {found['policy']}, seed {found['seed']}",
        f"faults      {sum(faults.values())}: "
        + ", ".join(f"{name} {count}" for name, count in faults.items()),
        f"            Redis writes lost by failovers: {sum(found['redis_writes_lost'])}",
        f"utterances  {utterances.get('asked', 0)} asked, {utterances.get('asked_again', 0)} of "
        f"them again; {utterances.get('translation_result', 0)} results, "
        f"{utterances.get('missing_result', 0)} misses, {utterances.get('error', 0)} refused, "
        f"{utterances.get('never', 0)} never answered",
        f"            {found['answers_lost_on_the_way']} answers lost on the way to a client",
        f"clients     {found['reconnects']} reconnects: {found['sessions_resumed']} sessions "
        f"resumed, {found['sessions_begun_anew']} begun anew",
        f"slots       {sum(found['leases_leaked'].values())} leaked, "
        f"{sum(found['leases_at_end'].values())} still leased as the last client left; "
        f"{sum(found['nodes_still_running'].values())} jobs still run",
        f"{'recovery':34s} {'times':>6s} {'p50':>9s} {'p99':>9s} {'max':>9s}  ms",
    ]
    lines += [
        f"  {name:32s} {one['times']:6d} "
        + " ".join(
            f"{one[figure]:9.1f}" if one["times"] else f"{'-':>9s}"
            for figure in ("p50", "p99", "most")
        )
        for name, one in found["recovery_ms"].items()
    ]
    checked = ", ".join(f"{name} {count}" for name, count in found["checked"].items() if count)
    lines.append(f"checked     {checked}")
    lines += [f"failed      {text}" for text in found["failures"]]
    return lines
