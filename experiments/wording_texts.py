"""
The texts of the report's page, tables apart, as (English, Chinese), by message id.

Pure data; `wording` reads it. A name in braces is a value that the run supplies.
"""

from __future__ import annotations

from typing import Final

PAGE_TEXTS: Final[dict[str, tuple[str, str]]] = {
    # The page
    "page.title": ("The scheduling report, put to the test", "调度流程分析报告：仿真检验"),
    "page.lead": (
        "The analysis report promised savings for six proposals in three stages. Each was switched "
        "on in a simulated scheduler, under the report's own costs, against the same speakers.",
        "分析报告为三个阶段的六项建议给出了预期收益。这里在仿真的调度服务器中逐项启用，"
        "采用报告自己的耗时数据，并让每个方案面对完全相同的说话者。",
    ),
    "page.answer": ("The answer", "结论"),
    "page.proposals": ("Proposal by proposal", "逐项建议"),
    "page.stages": ("Stage by stage", "逐个阶段"),
    "page.tables": ("The report's tables, recomputed", "报告各表的重新计算"),
    "page.race": ("How one request gets two jobs", "一个请求如何得到两个任务"),
    "page.method": ("How this was computed", "计算方法"),
    "page.evidence": ("evidence", "依据"),
    "page.section": ("report section {section}", "报告第 {section} 节"),
    "page.contents": ("Contents", "目录"),
    "page.rough": (
        "This is the quick, rough form: few replications, wide intervals, some variants left out. "
        "For figures to decide by, run it without --quick.",
        "这是快速的粗略版本：重复次数少，区间较宽，部分方案未运行。"
        "如需据以决策的数值，请去掉 --quick 再运行。",
    ),
    "not_quick": ("not in the quick form", "快速版本未包含"),
    "phase": ("phase {phase}", "Phase{phase}"),
    "phase.long": (
        "phase {phase} ({instances})",
        "Phase{phase}（{instances}）",
    ),
    "plot.saving": ("saves, ms", "节省，毫秒"),
    "plot.promised": ("promised", "报告预期"),
    "plot.measured": ("measured, 95 % interval", "实测，95% 区间"),
    "plot.gap": ("repeat after, ms", "重复请求间隔，毫秒"),
    "plot.doubles": ("double jobs per 100,000", "每十万任务的重复任务"),
    "plot.stage": ("stages up to {stage}", "阶段1至{stage}"),
    "plot.stages": (
        "Saving per job creation, phase {phase}",
        "每次任务创建的节省（Phase{phase}）",
    ),
    "plot.repeats": ("Two jobs for one request", "一个请求得到两个任务"),
    # Verdicts
    "verdict.confirmed": ("confirmed", "属实"),
    "verdict.confirmed_zero": ("confirmed, not told from 0", "属实，但与 0 无法区分"),
    "verdict.less": ("less than promised", "低于预期"),
    "verdict.more": ("more than promised", "高于预期"),
    "verdict.unsafe": ("unsafe", "不安全"),
    "verdict.undecided": ("undecided", "无法判定"),
    # The five lines
    "answer.approve.asked": (
        "1. Approve stages 1 and 2 at once?",
        "1. 立即批准阶段1和阶段2？",
    ),
    "answer.approve.no.word": ("Not as written", "不能按原文批准"),
    "answer.approve.yes.word": ("Yes", "可以"),
    "answer.approve.no": (
        "Together they save {create} per job creation, {audio} per audio chunk and {result} per "
        "job result (phase {phase}), but {unsafe} break what works today. Approve {instead} "
        "instead.",
        "合计每次任务创建节省 {create}，每个音频块节省 {audio}，每个任务结果节省 {result}"
        "（Phase{phase}），但{unsafe}会破坏现有的正确行为。建议改为批准 {instead}。",
    ),
    "answer.approve.yes": (
        "Together they save {create} per job creation, {audio} per audio chunk and {result} per "
        "job result (phase {phase}), and break nothing that their base keeps.",
        "合计每次任务创建节省 {create}，每个音频块节省 {audio}，每个任务结果节省 {result}"
        "（Phase{phase}），且未破坏基准所保持的任何约束。",
    ),
    "answer.evaluate.asked": ("2. Evaluate stage 3?", "2. 评估阶段3？"),
    "answer.evaluate.word": ("Split it", "拆开评估"),
    "answer.evaluate": (
        "Proposal 5 saves {saves5} (promised {promised5}: {verdict5}); proposal 6 saves {saves6} "
        "(promised {promised6}: {verdict6}). Proposal 6 with a cache that a new snapshot version "
        "makes invalid saves {safe6}.",
        "建议5节省 {saves5}（预期 {promised5}：{verdict5}）；建议6节省 {saves6}"
        "（预期 {promised6}：{verdict6}）。若建议6的缓存在快照版本更新后立即失效，则节省 {safe6}。",
    ),
    "answer.monitor.asked": ("3. Build performance monitoring?", "3. 建立性能监控体系？"),
    "answer.monitor.word": ("Yes, first", "应当，且先做"),
    "answer.monitor": (
        "{off} of {all} promises (proposals in each phase) are not borne out: they save less or "
        "are unsafe. {more} save more than promised. The report has no baseline: without section "
        "8.1's metrics nobody would have noticed.",
        "{all} 项承诺（各建议在各 Phase）中有 {off} 项未能兑现：节省不足或不安全；另有 {more} 项"
        "高于预期。报告没有基线：没有 8.1 节的指标就无人能发现。",
    ),
    "answer.claim.asked": ("Is 20–30 % less latency right?", "“减少20–30%延迟”是否成立？"),
    "answer.claim.word": ("For {held} of {all} latencies", "{all} 种延迟中有 {held} 种成立"),
    "answer.claim": (
        "All three stages (phase {phase}) take off {create_job_ms} of job creation, "
        "{audio_chunk_ms} of an audio chunk, {job_result_ms} of a job result, and "
        "{end_to_end_ms} of what a listener waits for.",
        "三个阶段全部实施（Phase{phase}）后，任务创建减少 {create_job_ms}，音频块减少 "
        "{audio_chunk_ms}，任务结果减少 {job_result_ms}，听者实际等待的时间减少 {end_to_end_ms}。",
    ),
    "answer.safe.asked": ("What instead?", "有何替代方案？"),
    "answer.safe.word": ("One safe path", "一条安全路径"),
    "answer.safe.clean": (
        "One claim script instead of phases, counters and locks (safe) saves {create} per job "
        "creation ({percent}), {audio} per chunk, {result} per result (phase {phase}) and breaks "
        "no invariant here ({jobs} jobs: at most {bound} per 100,000, 95 %).",
        "以一个认领脚本取代分阶段路径、计数与锁（safe 方案）：每次任务创建节省 {create}"
        "（{percent}），每个音频块节省 {audio}，每个结果节省 {result}（Phase{phase}），"
        "且此处未违反任何约束（{jobs} 个任务；95% 上界：每十万任务至多 {bound} 次）。",
    ),
    "answer.safe.broken": (
        "safe saves {create} per job creation ({percent}), {audio} per chunk, {result} per "
        "result (phase {phase}), but broke invariants {broken} times here.",
        "safe 方案每次任务创建节省 {create}（{percent}），每个音频块节省 {audio}，每个结果节省 "
        "{result}（Phase{phase}），但此处违反约束 {broken} 次。",
    ),
    # Proposals (section 5) and their risks (section 7)
    "proposal.short": ("proposal {id}", "建议{id}"),
    "proposal.1": ("Pass one snapshot through job creation", "统一快照传递机制"),
    "proposal.2": ("Read request_binding once and reuse it", "缓存request_binding结果"),
    "proposal.3": ("Merge the audio_buffer calls", "合并audio_buffer调用"),
    "proposal.4": ("Merge the group_manager updates", "合并group_manager操作"),
    "proposal.5": ("Another session lock", "优化Session锁策略"),
    "proposal.6": ("Finer caches", "引入更细粒度的缓存"),
    "safe_form.2": (
        "only the second GET goes; the check under the lock stays",
        "只去掉第二次 GET，保留锁内复查",
    ),
    "safe_form.3": (
        "the old value for the pause check, the local clock for the timer",
        "停顿判断用旧值，计时器用本地当前时间",
    ),
    "safe_form.6": (
        "a cached choice is valid for one version of the snapshot",
        "缓存的选择只对一个快照版本有效",
    ),
    "card.promised": ("promised", "报告预期"),
    "card.measured": ("measured", "实测"),
    "card.safety": ("safety", "安全性"),
    "card.effort": ("effort", "实施难度"),
    "card.duration": ("duration", "工期"),
    "card.risk": ("risk", "风险"),
    "card.mitigation": ("mitigation", "缓解措施"),
    "card.safe_form": ("safe form", "安全形式"),
    "card.weeks": ("{low}–{high} weeks (stage {stage})", "{low}–{high} 周（阶段{stage}）"),
    "card.clean": (
        "{phase}: nothing broken that the base keeps ({jobs} jobs; 0 seen means at most {bound} "
        "per 100,000, 95 %)",
        "{phase}：未破坏基准所保持的约束（{jobs} 个任务；观察到 0 次，95% 上界为每十万任务 "
        "{bound} 次）",
    ),
    "card.more": ("more than the base, per 100,000:", "每十万比基准多："),
    "card.saved": ("{phase}: {saves}. {why}", "{phase}：{saves}。{why}"),
    "card.promised_of": ("{saves} ({metric})", "{saves}（{metric}）"),
    "card.safe_saves": ("{id}s ({how}): {saves}, {verdict}", "{id}s（{how}）：{saves}，{verdict}"),
    "card.zero": ("Cannot be told from 0.", "与 0 无法区分。"),
    "card.nothing": (
        "Does nothing in phase {phase}: no binding is read there.",
        "在 Phase{phase} 中不起作用：那里不读取 request_binding。",
    ),
    "effort.low": ("low (local)", "低（局部优化）"),
    "effort.medium": ("medium", "中等"),
    "effort.high": ("high (careful design)", "高（需要仔细设计）"),
    "risk.parameters": (
        "too many parameters passed along (impact medium, probability low)",
        "快照传递导致参数过多（影响中等，概率低）",
    ),
    "risk.stale": (
        "stale caches give inconsistent data (impact high, probability low)",
        "缓存失效导致数据不一致（影响高，概率低）",
    ),
    "risk.locks": (
        "a new lock scheme brings concurrency faults (impact high, probability medium)",
        "锁优化导致并发问题（影响高，概率中）",
    ),
    "risk.regression": (
        "functional regression (impact high, probability low)",
        "优化导致功能回归（影响高，概率低）",
    ),
    "mitigation.parameters": ("one structure that carries them", "使用结构体封装参数"),
    "mitigation.stale": ("TTL and version numbers", "使用TTL和版本号机制"),
    "mitigation.locks": ("thorough tests, gradual rollout", "充分测试，逐步上线"),
    "mitigation.regression": ("thorough tests, canary release", "充分测试，灰度发布"),
    # Safety
    "breach.plain": (
        "{rule}, {meaning}: {more} ± {half} ({count} of {out_of}; base: {base})",
        "{rule}（{meaning}）：{more} ± {half}（{out_of} 中 {count} 次；基准 {base} 次）",
    ),
    "breach.repeat": (
        "when a request is repeated on the other instance after {gap} ms: {rule}, {meaning}: "
        "{more} ± {half} ({count} of {out_of}; base: {base})",
        "当请求在 {gap} 毫秒后于另一实例重复时：{rule}（{meaning}）：{more} ± {half}"
        "（{out_of} 中 {count} 次；基准 {base} 次）",
    ),
    "rule.I1": ("two jobs for one utterance", "同一句话产生两个任务"),
    "rule.I2": ("a node held more jobs than it has slots", "节点承担的任务多于槽位"),
    "rule.I3": ("not exactly one answer", "答复不是恰好一次"),
    "rule.I6": ("answers out of order", "答复乱序"),
    "rule.I11": ("a repeated request got another job", "重复请求得到了另一个任务"),
    "rule.I13": ("cut too early or too late", "切句过早或过晚"),
    "rule.I14": ("cuts unlike the base's, per 100,000 cuts", "与基准不同的切句，每十万次切句"),
    "rule.other": ("broken", "被违反"),
    # Operations, metrics, levels
    "operation.create_job": ("job creation", "任务创建"),
    "operation.job_result": ("job result", "JobResult处理"),
    "operation.audio_chunk": ("audio chunk", "音频块处理"),
    "metric.create_job_ms": ("job creation", "任务创建延迟"),
    "metric.audio_chunk_ms": ("audio chunk", "音频块处理延迟"),
    "metric.job_result_ms": ("job result", "JobResult处理延迟"),
    "metric.mixed_sum_ms": ("the report's mixed sum", "报告的混合合计"),
    "metric.end_to_end_ms": ("end to end (cut to delivery)", "端到端（切句到送达）"),
    "metric.snapshot_read_ms": ("snapshot read", "快照获取延迟"),
    "metric.node_selection_ms": ("node selection", "节点选择延迟"),
    "metric.session_lock_wait_ms": ("session lock wait", "Session锁等待"),
    **{
        f"metric.{stem}_ms_p{percent}": (f"{english} p{percent}", f"{chinese} p{percent}")
        for stem, english, chinese in (
            ("create_job", "job creation", "任务创建"),
            ("audio_chunk", "audio chunk", "音频块"),
            ("job_result", "job result", "JobResult"),
        )
        for percent in (50, 95, 99)
    },
    "level.low": ("low", "低"),
    "level.medium": ("medium", "中等"),
    "level.high": ("high", "高"),
    # The race
    "race.lead": (
        "Two instances create a job for one request. Under {policy} all {orders} orders of their "
        "store operations were tried on the real code: {doubling} end in two jobs.",
        "两个实例为同一请求创建任务。在 {policy} 下，用真实代码穷举了其存储操作的全部 "
        "{orders} 种次序：其中 {doubling} 种产生两个任务。",
    ),
    "race.open": (
        "Under {policy} {orders} orders were tried, not all: {doubling} end in two jobs.",
        "在 {policy} 下尝试了 {orders} 种次序（未穷尽）：其中 {doubling} 种产生两个任务。",
    ),
    "race.shortest": (
        "{policy}. The one with the fewest changes of side ({switches}):",
        "{policy}：切换次数最少的一种（{switches} 次）：",
    ),
    "race.timeout": (
        "If the wait for the lock may also run out, {policy} doubles in {doubling} of {orders} "
        "orders: who waits in vain falls through to phase 1 and makes a job of its own.",
        "若等待锁也可能超时，则 {policy} 在 {orders} 种次序中有 {doubling} 种产生两个任务："
        "等待落空的一方回退到Phase1并自行创建任务。",
    ),
    "race.instance": ("instance", "实例"),
    "race.operation": ("store operation", "存储操作"),
    "race.reply": ("reply", "返回"),
    # Method
    "method.world": (
        "A simulated world runs the scheduler's own code; only time is modelled. Cost model "
        "{costs}, load {load} of the tightest resource, {nodes} nodes, {cores} cores per instance.",
        "仿真世界运行调度器自己的代码，只有时间是模型。耗时模型 {costs}，负载为最紧资源的 {load}，"
        "{nodes} 个节点，每实例 {cores} 核。",
    ),
    "method.statistics": (
        "{replications} replications per variant; every variant hears the same speakers and the "
        "same service times, so differences are paired. Intervals are 95 % by Student's t over "
        "replications.",
        "每个方案 {replications} 次重复实验；所有方案面对相同的说话者与服务时间，"
        "因此差值为配对比较。区间为跨实验的95% t区间。",
    ),
    "method.repeat": ("Repeat it: ", "复现命令："),
    "method.digest": ("Digest of all runs: ", "全部运行的摘要："),
    "method.sizes": ("{jobs} jobs in {runs} runs", "{runs} 次运行，共 {jobs} 个任务"),
}
