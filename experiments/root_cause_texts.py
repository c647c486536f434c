"""
What the page of the study `root-cause` says, in English and Chinese.

Figures are put in by the page; nothing here states a number that was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "title": ("What dominates job creation", "任务创建延迟的主因"),
    "question": (
        "What dominates the latency of job creation, and what removes it?",
        "任务创建延迟的主因是什么，如何消除？",
    ),
    "reads": (
        "Without touching the connection, readiness from the snapshot (W7) saves {w7} ms "
        "({w7_share}): it takes away the operations that queue behind the reads, not the reads.",
        "即使不改动连接，就绪状态改读快照（W7）也节省 {w7} ms（{w7_share}）："
        "它去掉的是排在阻塞读取之后的操作，而非阻塞读取本身。",
    ),
    "parts": ("A job creation, step by step", "任务创建逐步分解"),
    "savings": ("What each change saves, ranked", "各项改动的节省排名"),
    "losses": ("What the means leave out, per run", "均值之外：每次运行的损失"),
    "step": ("step", "步骤"),
    "calls": ("calls", "次数"),
    "wait": ("waiting, ms", "等待, ms"),
    "own": ("own time, ms", "自身耗时, ms"),
    "share": ("share", "占比"),
    "rest": ("all other steps", "其余步骤"),
    "total": ("sum", "合计"),
    "variant": ("change", "改动"),
    "base": ("against", "基准"),
    "latency": ("job creation, ms", "任务创建, ms"),
    "p95": ("p95, ms", "p95, ms"),
    "saves": ("saves, ms", "节省, ms"),
    "percent": ("saves, %", "节省, %"),
    "result": ("job result, ms", "结果处理, ms"),
    "cut": ("utterances cut", "切出的语句"),
    "created": ("jobs created", "创建的任务"),
    "finished": ("jobs finished", "完成的任务"),
    "unanswered": ("answers late or missing (I3)", "结果迟到或缺失 (I3)"),
    "stuck": ("sessions wedged (I8)", "卡死的会话 (I8)"),
    "unreadable": ("remote dispatches unreadable (B7)", "无法解析的远程派发 (B7)"),
    "refused_chunks": ("audio chunks refused", "被拒的音频块"),
    "dominates": (
        "A job creation takes {total} ms as shipped. {share:.2%} of that is waiting for the Redis "
        "connection, which the blocking stream read holds: {calls:.0f} operations one after "
        "another, each behind a read. The work itself takes {own} ms.",
        "出厂状态下一次任务创建耗时 {total} ms，其中 {share:.2%} 在等待"
        "被阻塞式流读取占用的Redis连接：{calls:.0f} 次操作逐一排在阻塞读取之后；"
        "实际工作只需 {own} ms。",
    ),
    "behind": (
        "Another {share:.1%} is waiting in `{step}` ({wait} ms): whoever holds that lock waits for "
        "the connection in its turn.",
        "另有 {share:.1%} 在 `{step}` 处等待（{wait} ms）：该锁的持有者自身也在等待连接。",
    ),
    "compare": (
        "An own connection for the stream (W1) saves {w1} ms ({w1_share}); the report's six "
        "proposals together save {six} ms ({six_share}).",
        "为流读取使用独立连接（W1）节省 {w1} ms（{w1_share}）；报告的六项建议合计节省 {six} ms"
        "（{six_share}）。",
    ),
    "after": (
        "After W1 a creation takes {left} ms. Of that, readiness from the snapshot (W7) saves "
        "{w7} ms, all six proposals save {six} ms.",
        "W1之后一次创建耗时 {left} ms；其中就绪状态改读快照（W7）节省 {w7} ms，"
        "六项建议合计节省 {six} ms。",
    ),
    "copy": (
        "The copy of the snapshot, which the report prices at 10 to 50 ms, is a pointer as "
        "shipped; a real one would add {w3} ms to every creation after W1.",
        "报告估价 10-50 ms 的快照复制在出厂代码中只是指针；若真做深拷贝，"
        "W1之后每次创建会增加 {w3} ms。",
    ),
    "lost": (
        "As shipped, {cut} utterances were cut ({other} with W1), of which {created} had become a "
        "job and {finished} were finished when the run ended; {chunks} audio chunks were refused, "
        "{unanswered} answers were late or missing (I3); sessions wedged (I8; the bound "
        "is per session): {stuck}. All per "
        "run of {sessions:.0f} sessions.",
        "出厂状态下切出 {cut} 句（W1下 {other} 句），运行结束时其中 {created} 句成为任务、"
        "{finished} 个完成；{chunks} 个音频块被拒，{unanswered} 个结果迟到或缺失（I3）；"
        ""
        "卡死的会话（I8；上界按每会话计）：{stuck}。均为每次运行（{sessions:.0f} 个会话）。",
    ),
    "note": (
        "Savings are paired by replication under common random numbers; every ± is half of a 95 % "
        "interval. Means count creations that ended: those still waiting when the run ended are "
        "not in them, so the shipped mean is, if anything, too low.",
        "节省量按共同随机数逐次配对；± 为 95% 置信区间的半宽。均值只含已结束的创建："
        "运行结束时仍在等待的不计入，因此出厂均值只会偏低。",
    ),
}


def text(key: str, lang: str) -> str:
    """One of the page's texts, in `en` or `zh`."""
    english, chinese = _TEXTS[key]
    return chinese if lang == "zh" else english


_LABELS: Final[Mapping[str, str]] = {
    "shipped": "出厂状态",
    "W1": "W1：流读取独立连接，其余 16 个连接",
    "W1, 1 connection": "W1：流读取独立连接，其余 1 个连接",
    "W7, pipelined": "W7：能力读取合并为一次流水线",
    "W7": "W7：就绪状态改读快照",
    "W8": "W8：取消第二次节点选择",
    "W18": "W18：访问存储时不持有 jobs 锁",
    "P1": "建议1：每次创建一个快照",
    "P2": "建议2：每次创建只读一次 binding",
    "P3": "建议3：音频时钟只读一次",
    "P4": "建议4：合并组更新",
    "P5": "建议5：Session 读写锁",
    "P6": "建议6：带有效期的缓存",
    "six proposals": "六项建议合计",
    "all repairs": "W1、W7、W8 与 W18（W3 出厂即如此）",
    "safe": "safe 设计",
    "W1 and W7": "W1 之后再加 W7",
    "W1 and six": "W1 之后再加六项建议",
    "W1 and W3": "W1 之后撤销 W3：按报告价格做深拷贝",
}


def label(variant: str, english: str, lang: str) -> str:
    """What a variant of the packaged study is called; another one keeps its own label."""
    return _LABELS.get(variant, english) if lang == "zh" else english
