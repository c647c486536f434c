"""
What is measured of every run: names, units and labels.

Names are stable: studies, summaries and reports use them. Where a name holds another one
(`busy:NAME`, `I1_per_100k`), `metric_of` makes the entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from simsched.telemetry import OpKind


class Metric(NamedTuple):
    """One metric: its unit and what it is, in English and Chinese."""

    unit: str
    english: str
    chinese: str

    def label(self, lang: str) -> str:
        """What it is, in `en` or `zh`."""
        return self.chinese if lang == "zh" else self.english


OPERATIONS: Final[Mapping[str, tuple[OpKind, str, str]]] = {
    "create_job": (OpKind.CREATE_JOB, "job creation", "任务创建"),
    "job_result": (OpKind.JOB_RESULT, "job result", "任务结果处理"),
    "audio_chunk": (OpKind.AUDIO_CHUNK, "audio chunk", "音频块处理"),
    "dispatch": (OpKind.DISPATCH, "dispatch", "任务派发"),
    "finalize": (OpKind.FINALIZE, "finalize", "语句结束处理"),
}
"""Operations with a latency of their own, by the stem of their metrics."""

WAITS: Final[Mapping[str, tuple[str, str]]] = {
    "end_to_end": ("from the cut to the delivered answer", "从切句到结果送达"),
    "queue_wait": ("wait for a free node", "等待空闲节点"),
    "sojourn": ("from creation to the node's completion", "从创建到节点完成"),
}
"""Times of jobs that have a mean and percentiles."""

PERCENTILES: Final = (50, 95, 99)

_PLAIN: Final[Mapping[str, Metric]] = {
    "snapshot_read_ms": Metric(
        "ms", "snapshot reads and copies per creation", "每次创建的快照获取"
    ),
    "node_selection_ms": Metric("ms", "node selection per creation", "每次创建的节点选择"),
    "session_lock_wait_ms": Metric(
        "ms", "wait for the session lock per creation", "每次创建的会话锁等待"
    ),
    "redis_ops_per_create": Metric("1", "Redis operations per creation", "每次创建的Redis操作数"),
    "abandoned_share": Metric("1", "jobs that gave up waiting", "放弃等待的任务比例"),
    "blocked_share": Metric(
        "1", "jobs refused because the queue was full", "因队列满被拒的任务比例"
    ),
    "failed_share": Metric("1", "jobs that failed", "失败的任务比例"),
    "waited_share": Metric("1", "jobs that had to wait for a node", "需要等待节点的任务比例"),
    "number_in_queue": Metric("1", "jobs that wait for a node, over time", "平均等待任务数"),
    "number_in_system": Metric(
        "1", "jobs not yet completed by a node, over time", "平均在途任务数"
    ),
    "system_backlog": Metric(
        "1", "jobs that no node has begun with, from the cut on", "切句后节点尚未开始的任务数"
    ),
    "system_growth_per_s": Metric("1/s", "growth of that number", "该数的增长速度"),
    "dispatch_backlog": Metric("1", "jobs not yet dispatched", "尚未派发的任务数"),
    "dispatch_growth_per_s": Metric("1/s", "growth of that number", "该数的增长速度"),
    "window_s": Metric("s", "length of the window that is measured", "测量窗口长度"),
    "jobs_per_s": Metric("1/s", "jobs completed per second", "每秒完成任务数"),
}


def _latencies() -> dict[str, Metric]:
    texts = {name: (english, chinese) for name, (_, english, chinese) in OPERATIONS.items()}
    metrics = {}
    for name, (english, chinese) in (texts | dict(WAITS)).items():
        metrics[f"{name}_ms"] = Metric("ms", f"{english}, mean", f"{chinese}，均值")
        for percent in PERCENTILES:
            metrics[f"{name}_ms_p{percent}"] = Metric(
                "ms", f"{english}, p{percent}", f"{chinese}，p{percent}"
            )
    return metrics


METRICS: Final[Mapping[str, Metric]] = {**_latencies(), **_PLAIN}
"""Every metric with a fixed name, in the order of tables."""


def metric_of(name: str) -> Metric:
    """The entry of a metric; one that is not known says its own name and no unit."""
    known = METRICS.get(name)
    if known is not None:
        return known
    if name.startswith("busy:"):
        resource = name.removeprefix("busy:")
        return Metric("1", f"utilisation of {resource}", f"{resource} 利用率")
    if name.endswith("_per_100k"):
        invariant = name.removesuffix("_per_100k")
        return Metric(
            "1/100k jobs",
            f"violations of {invariant} per 100,000 jobs",
            f"每十万任务违反{invariant}",
        )
    return Metric("", name, name)
