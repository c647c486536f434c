"""What the page of the study `load` says, in English and Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "title": ("How far each design carries", "各方案的承载能力"),
    "question": (
        "How far does each design carry, and what breaks first?",
        "各方案能承载多少，最先崩溃的是什么？",
    ),
    "needed": (
        "For N speakers with a p95 of at most {bound:g} ms",
        "N 名说话人、p95 不超过 {bound:g} ms 所需的配置",
    ),
    "needed.note": (
        "The smallest configuration tried that certainly carries them, as nodes and instances x "
        "cores; a dash where none of those tried does. What lies between: simsched experiment size "
        "--speakers N --p95 MS.",
        "所试配置中确定可承载的最小者（节点数，实例 x 核）；横线表示所试配置均不可。"
        "更细的结果：simsched experiment size --speakers N --p95 MS。",
    ),
    "policy_costs": ("costs, policy", "成本模型、策略"),
    "n_speakers": ("{n:,} speakers", "{n:,} 名说话人"),
    "n_nodes": ("{n:,} nodes, {size}", "{n:,} 节点，{size}"),
    "single nodes": ("single nodes", "个别节点"),
    "nodes_full": ("all nodes", "全部节点"),
    "lock": ("lock {name}", "锁 {name}"),
    "redis": ("Redis", "Redis"),
    "cores_full": ("cores", "CPU 核"),
    "not_reached": ("not reached", "未达到"),
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
    "throughput": ("begun by nodes per second", "每秒由节点开始处理数"),
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
        "At {rate} a second its backlog grows by {growth}: what waits, waits for {on}.",
        "在每秒 {rate} 句时积压以 {growth} 增长：积压在等待{on}。",
    ),
    "short": (
        "At {rate} a second nodes begin with {begun} only: what waits, waits for {on}.",
        "在每秒 {rate} 句时，节点每秒只能开始处理 {begun}：积压在等待{on}。",
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
        "A load counts as carried when the backlog does not grow, nodes begin with at "
        "least {begun:.0%} of what arrives, at most 1 % of the jobs fail, "
        "and the upper end of the 95 % interval of the p95 lies below {bound:g} ms. One speaker "
        "makes an utterance every {seconds:g} s. Load is the share of the tightest resource that "
        "a pilot found; a policy can break far below 1. Single nodes: jobs queue at the nodes that "
        "are chosen for many while others idle. A range: carried for certain at its low end, not "
        "at its high end, the next load tried. A backlog that grows by less than {share:.0%} of "
        "what arrives is no overload: nodes are still filling up.",
        "满足以下条件视为可承载：积压不增长，节点开始处理至少 {begun:.0%} 的到达量，"
        "失败任务不超过 1%，且 p95 的 95% 区间上端低于 "
        "{bound:g} ms。每名说话人每 {seconds:g} 秒一句。负载是试运行所得最紧资源的占用比例；"
        "有的策略在远低于 1 时就会崩溃。个别节点：任务堆积在被大量选中的节点上，而其他节点空闲。"
        "区间：低端确定可承载，高端（所试的下一个负载）则不可。"
        "积压增长低于到达量的 {share:.0%} 不算过载：节点仍在填充。",
    ),
}


def text(key: str, lang: str) -> str:
    """One of the page's texts, in `en` or `zh`."""
    english, chinese = _TEXTS[key]
    return chinese if lang == "zh" else english
