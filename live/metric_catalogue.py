"""
Every metric of `/metrics`: its name, kind, labels and meaning, as one table.

Names follow the conventions of Prometheus: `simsched_`, base units (`_seconds`, `_bytes`), `_total`
for counters. Labels have few values: no ids of nodes, sessions or jobs ever become one. What feeds
a metric is the business of `metrics` and `gauges`; docs/metrics.md is written from this table.
"""

from __future__ import annotations

from typing import Final, NamedTuple

PREFIX: Final = "simsched_"

SECONDS: Final = (
    1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0,
    2.0, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Bucket bounds of every histogram: three a decade, from a look-up in memory to a job's timeout."""

HISTOGRAM: Final = "histogram"
COUNTER: Final = "counter"
GAUGE: Final = "gauge"


class Spec(NamedTuple):
    """One metric; `name` is written without the prefix."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str

    @property
    def full_name(self) -> str:
        """The name as it is scraped."""
        return PREFIX + self.name


def _h(name: str, text: str, *labels: str) -> Spec:
    return Spec(f"{name}_seconds", HISTOGRAM, labels, text)


def _c(name: str, text: str, *labels: str) -> Spec:
    return Spec(f"{name}_total", COUNTER, labels, text)


def _g(name: str, text: str, *labels: str) -> Spec:
    return Spec(name, GAUGE, labels, text)


REPORT: Final = (
    _h("job_create", "A job's creation, from the request to the job (report 8.1, 1).", "policy"),
    _h("snapshot_acquire",
       "Snapshot reads and copies of one job creation, waiting included (report 8.1, 2); 0 where "
       "the policy shares the snapshot by reference.", "policy"),
    _h("node_selection", "Node selections of one job creation (report 8.1, 3).", "policy"),
    _h("session_lock_wait",
       "Wait for the session's lock in one job creation (report 8.1, 4).", "policy"),
    _h("job_result", "A result's processing, from its receipt to its end (report 8.1, 5).",
       "policy"),
)  # fmt: skip
"""The five metrics that the report asks for in its section 8.1, in its order."""

DISPATCH: Final = (
    _h("dispatch", "From an utterance's cut to its first assignment's departure for a node.",
       "policy"),
    _h("dispatch_stage",
       "One stage of a job's way: created (from the cut; the claim of a node is part of it), "
       "assigned (until it has a node: 0 if its creation found one), sent (until the assignment "
       "left), acked (until the node said that it has it), result (from sent until the node's "
       "answer), delivered (from the answer until it left for the client).",
       "policy", "stage"),
    _h("end_to_end", "From the cut of an utterance to its answer's departure.", "policy"),
    _h("queue_wait", "Wait of a job for a free node, until it got one or gave up.", "policy"),
    _h("operation", "Any operation of the core, by kind.", "policy", "kind"),
)  # fmt: skip

JOBS: Final = (
    _c("utterances_cut", "Utterances cut, by what cut them.", "policy", "reason"),
    _c("jobs_created", "Jobs created.", "policy"),
    _c("jobs_repeated", "Requests that came again and got the job they had.", "policy"),
    _c("jobs_queued", "Jobs that had to wait for a node.", "policy"),
    _c("jobs_refused", "Utterances that got no job, by reason.", "policy", "reason"),
    _c("jobs_ended", "Jobs ended: completed or failed, with the reason.",
       "policy", "status", "reason"),
    _c("redeliveries", "Assignments sent that were not a job's first.", "policy"),
    _c("results", "Answers of nodes: accepted, or why they were dropped.", "policy", "outcome"),
    _c("fence_rejects", "Answers dropped because their attempt was no longer the current one.",
       "policy"),
    _c("answers", "Final answers that left for a client, by what they were.", "policy", "outcome"),
    _c("claims", "Answers of the claim script: claimed, full, bound, ended.", "outcome"),
    _c("leases_lost", "Slots' leases that a renewal found gone."),
    _c("audio_chunks_refused", "Chunks of audio refused because their session was too far behind."),
    _c("audio_bytes", "Audio cut into utterances.", "policy"),
    _g("jobs_in_flight", "Jobs that have not ended."),
    _g("queue_depth", "Jobs that wait for a node."),
    _g("queue_limit", "Most jobs that may wait for a node."),
    _g("queue_oldest_seconds", "How long the longest waiting job has waited."),
)  # fmt: skip

NODES: Final = (
    _g("nodes", "Nodes known, by class (their pool) and health.", "class", "health"),
    _g("slots", "Slots of nodes that are not offline, by class: used, free, and leaked: still "
       "taken although their job ended more than a moment ago.", "class", "state"),
    _c("nodes_registered", "Nodes that connected."),
    _c("nodes_lost", "Nodes that went, by reason.", "reason"),
    _c("node_errors", "Error messages of nodes."),
    _c("reruns", "Recognitions that nodes say they ran again."),
)  # fmt: skip

CONNECTIONS: Final = (
    _g("sessions", "Sessions open here.", "policy"),
    _c("sessions_opened", "Sessions opened.", "policy"),
    _c("sessions_closed", "Sessions closed.", "policy"),
    _g("connections", "Open sockets: client or node.", "kind"),
    _c("connections_opened", "Sockets opened.", "kind"),
    _c("connections_closed", "Sockets closed, by close code or reason.", "kind", "code"),
    _c("refusals", "Connections and frames refused, by code.", "kind", "code"),
    _c("slow_consumers", "Connections closed because they did not take what was sent.", "kind"),
    _g("outbox_bytes", "Bytes that wait to be sent, over all connections.", "kind"),
    _g("outbox_frames", "Frames that wait to be sent, over all connections.", "kind"),
)

STORE: Final = (
    _h("redis_round_trip", "A call of the store as its caller saw it, by call.", "call"),
    _h("redis_wait", "Wait of a call for its turn, before it was sent."),
    _c("store_errors", "Calls of the store without an answer."),
    _g("store_up", "1 while the store answers, else 0."),
    _g("store_in_flight", "Calls of the store that wait for their answer."),
)

PROCESS: Final = (
    _h("loop_lag", "How late the event loop was for a timer."),
    _h("lock_wait", "Wait for a lock that is held across waits, by lock.", "lock"),
    _g("draining", "1 while the instance takes no more sessions, else 0."),
    _g("started_timestamp_seconds", "Unix time of the start."),
    _g("info", "1; what runs here, in labels.", "version", "store", "policy"),
    _c("counted", "What the core counts and no other metric here shows, by name.", "name"),
    _c("recording_dropped", "Records that --record could not keep up with."),
)

GROUPS: Final = (
    ("The report's five", REPORT),
    ("Dispatch", DISPATCH),
    ("Jobs", JOBS),
    ("Nodes and slots", NODES),
    ("Connections", CONNECTIONS),
    ("Store", STORE),
    ("Process", PROCESS),
)
"""All metrics, in the order of their page."""

CATALOGUE: Final = tuple(spec for _, specs in GROUPS for spec in specs)

_HEAD: Final = """\
# Metrics

What `/metrics` shows, in the text format of Prometheus; `/api/v1/metrics` says the same as JSON.
This page is written from the code (`python -m simsched.live.metric_catalogue > docs/metrics.md`)
and a test compares the two.

- `policy` is `base`, or `canary` for the sessions that run the canary's policy.
- Histograms have the buckets {buckets} (seconds).
- `class` of a node is the first of its pools; beyond 20 classes it is `other`, as is any label
  value beyond the first 50 of its metric: no id ever becomes a label.
- The alert rules that go with them are in `live/alerts.yml`.

Beyond loopback, `/metrics` and `/api/` ask for a client's token (`Authorization: Bearer ...`).
"""


def page() -> str:
    """The content of docs/metrics.md."""
    buckets = ", ".join(f"{bound:g}" for bound in SECONDS)
    lines = [_HEAD.format(buckets=buckets)]
    for title, specs in GROUPS:
        lines += [f"## {title}", "", "| metric | kind | labels | meaning |", "|---|---|---|---|"]
        for spec in specs:
            labels = ", ".join(f"`{label}`" for label in spec.labels) or "-"
            lines.append(f"| `{spec.full_name}` | {spec.kind} | {labels} | {spec.text} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")
