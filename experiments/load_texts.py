"""What the page of the study `load` says, in English and Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "title": ("How far each design carries", "各方案的承载能力"),
    "sizing": ("Sizing", "容量规划"),
    "configuration": ("costs, nodes, policy", "成本模型、节点数、策略"),
    "instances": ("instances x cores", "实例 x 核"),
    "cores": ("cores per 1,000 speakers", "每千名说话人所需核数"),
    "rate": ("utterances per second", "每秒语句数"),
    "speakers": ("speakers", "说话人"),
    "p50": ("job creation p50", "任务创建 p50"),
    "p95": ("job creation p95, ms", "任务创建 p95, ms"),
    "breaks_on": ("breaks on", "瓶颈"),
    "bound": ("the bound", "延迟上限"),
    "nodes": ("nodes", "个节点"),
    "policy": ("policy", "策略"),
    "load": ("load", "负载"),
    "throughput": ("completed per second", "每秒完成数"),
    "busiest": ("busiest resource", "最忙资源"),
    "failed": ("failed", "失败"),
    "grows": ("overload: backlog grows by", "过载：积压增长"),
    "carries": (
        "{policy}, {nodes} nodes, costs {costs}: carries {rate} utterances a second, {speakers} "
        "speakers, with a p95 of {p95}. ",
        "{policy}，{nodes} 个节点，成本模型 {costs}：可承载每秒 {rate} 句，"
        "{speakers} 名说话人，p95 为 {p95}。",
    ),
    "nothing": (
        "{policy}, {nodes} nodes, costs {costs}: no load tried keeps the p95 of {bound:g} ms. ",
        "{policy}，{nodes} 个节点，成本模型 {costs}：所试负载均不满足 p95 {bound:g} ms。",
    ),
    "breaks": (
        "At {rate} a second its backlog grows by {growth}, on {on} (busiest resource: {busy:.0%}).",
        "在每秒 {rate} 句时积压以 {growth} 增长，瓶颈为 {on}（最忙资源 {busy:.0%}）。",
    ),
    "fails": (
        "At {rate} a second {failed:.1%} of the jobs fail.",
        "在每秒 {rate} 句时 {failed:.1%} 的任务失败。",
    ),
    "slow": (
        "At {rate} a second its p95 is {p95}, not certainly below {bound:g} ms.",
        "在每秒 {rate} 句时 p95 为 {p95}，不能确定低于 {bound:g} ms。",
    ),
    "open": ("No load tried breaks it.", "所试负载均未使其崩溃。"),
    "note": (
        "A load counts as carried when the backlog does not grow, at most 1 % of the jobs fail, "
        "and the upper end of the 95 % interval of the p95 lies below {bound:g} ms. One speaker "
        "makes an utterance every {seconds:g} s. Single nodes break when one node is chosen for "
        "many while others idle, free slots when the scheduler does not find those that there are: "
        "no shared resource is then near its end. Brackets: the next load tried, which failed.",
        "满足以下条件视为可承载：积压不增长，失败任务不超过 1%，且 p95 的 95% 置信区间上端低于 "
        "{bound:g} ms。每名说话人每 {seconds:g} 秒一句。若大量任务集中到个别节点而其他节点空闲，"
        "则瓶颈为单个节点（single nodes）；"
        "若调度器找不到尚存的空位，则瓶颈为空位（free slots）；"
        "此时共享资源并未耗尽。括号内为下一个失败的负载。",
    ),
}


def text(key: str, lang: str) -> str:
    """One of the page's texts, in `en` or `zh`."""
    english, chinese = _TEXTS[key]
    return chinese if lang == "zh" else english
