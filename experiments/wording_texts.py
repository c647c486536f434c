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
    "page.by-stage": ("Stage by stage", "逐个阶段"),
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
    "plot.saving": ("saves, ms", "节省，毫秒"),
    "plot.promised": ("promised", "报告预期"),
    "plot.measured": ("measured, 95 % interval", "实测，95% 区间"),
    "plot.gap": ("repeat after, ms", "重复请求间隔，毫秒"),
    "plot.doubles": ("double jobs per 100,000", "每十万任务的重复任务"),
    "plot.stages": (
        "Saving per job creation, phase {phase}",
        "每次任务创建的节省（Phase{phase}）",
    ),
    "page.reading": (
        "± is half of a 95 % interval; (n = 1): one run, no interval. Phase 1 is one instance, "
        "phase 2 several with a shared store. Safety counts what a variant breaks more often than "
        "today's design.",
        "± 为 95% 区间的半宽；(n = 1) 表示仅一次实验，没有区间。Phase1 为单实例，"
        "Phase2 为共享存储的多实例。安全性只计比现有设计更常发生的违反。",
    ),
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
        "job result (phase {phase}). But {unsafe}. Approve {instead} instead.",
        "合计每次任务创建节省 {create}，每个音频块节省 {audio}，每个任务结果节省 {result}"
        "（Phase{phase}）。但是：{unsafe}。建议改为批准 {instead}。",
    ),
    "answer.approve.why": ("proposal {id} is unsafe: {why}", "建议{id}不安全：{why}"),
    "answer.approve.form": ("{id}s (saves {saves})", "{id}s（节省 {saves}）"),
    "answer.approve.yes": (
        "Together they save {create} per job creation, {audio} per audio chunk and {result} per "
        "job result (phase {phase}), and break nothing that their base keeps.",
        "合计每次任务创建节省 {create}，每个音频块节省 {audio}，每个任务结果节省 {result}"
        "（Phase{phase}），且未破坏基准所保持的任何约束。",
    ),
    "answer.evaluate.asked": ("2. Evaluate stage 3?", "2. 评估阶段3？"),
    "answer.evaluate.word": ("Split it", "拆开评估"),
    "answer.evaluate.one": (
        "proposal {id} {gain} (promised {promised}): {verdict}{why}",
        "建议{id}{gain}（预期 {promised}）：{verdict}{why}",
    ),
    "answer.evaluate": (
        "In phase {phase} {parts}. With a cache that every new version of the snapshot makes "
        "invalid (6s), proposal 6 {gain6s}.",
        "在 Phase{phase} 中，{parts}。若缓存随每个新快照版本失效（6s），建议6{gain6s}。",
    ),
    "because": (", because {why}", "，因为{why}"),
    "gain.saves": ("saves {saves}", "节省 {saves}"),
    "gain.none": (
        "saves nothing that can be told from 0 ({saves})",
        "的节省与 0 无法区分（{saves}）",
    ),
    "gain.costs": ("saves nothing, it costs {costs}", "不但没有节省，反而多花 {costs}"),
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
    "answer.claim.word": (
        "Met by {held} of {all} latencies",
        "{all} 种延迟中有 {held} 种的区间与之相交",
    ),
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
    "answer.missed.asked": ("What does the report miss?", "报告遗漏了什么？"),
    "answer.missed.word": ("Single-chunk jobs", "单块音频任务"),
    "answer.missed": (
        "{share} of all jobs need not be: where silence has cut an utterance, the rule on pauses "
        "cuts the first chunk of the next one again, alone. A session makes {jobs} jobs instead of "
        "{held} (phase {phase}); answers out of order: {disordered}, without that rule {ordered}. "
        "{touched}",
        "{share} 的任务本不必存在：静音已切出一句之后，停顿规则又把下一句的第一个音频块单独切出。"
        "每个会话产生 {jobs} 个任务，本应为 {held} 个（Phase{phase}）；答复乱序 {disordered} 次，"
        "去掉该规则后 {ordered} 次。{touched}",
    ),
    "answer.missed.none": (
        "None of the six proposals that were run changes that.",
        "所运行的各项建议均未触及此问题。",
    ),
    "answer.missed.some": (
        "Of the six proposals only {who} changes it, and not on purpose: see its safety.",
        "六项建议中只有{who}改变了它，而且并非有意：见其安全性。",
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
    "card.unsafe": ("Not safe: {why}. {cause}", "不安全：{why}。{cause}"),
    "card.safe": ("No fault beyond today's was seen.", "未见超出现状的缺陷。"),
    "card.clean": (
        "{phase}: 0 in {jobs} jobs, so at most {bound} per 100,000 (95 %)",
        "{phase}：{jobs} 个任务中 0 次，95% 上界为每十万任务 {bound} 次",
    ),
    "card.evidence": ("evidence", "依据"),
    "link.proposals": ("promised and measured", "预期与实测"),
    "link.issues": ("the calls that it removes", "所去除的调用"),
    "link.part-race": ("how two jobs come about", "两个任务如何产生"),
    "link.repeated": ("double jobs by gap", "重复任务与间隔"),
    "link.safety": ("broken invariants", "约束违反情况"),
    "link.stages": ("promised and measured", "预期与实测"),
    "card.contains": ("contains", "包含"),
    "card.alone": ("adds by itself", "单独贡献"),
    "card.alone_of": (
        "phase {phase}: {saves} of the report's mixed sum (promised {promised})",
        "Phase{phase}：报告的混合合计 {saves}（预期 {promised}）",
    ),
    "card.stage_saved": (
        "{phase}: {create} per job creation, {audio} per audio chunk, {result} per job result",
        "{phase}：每次任务创建 {create}，每个音频块 {audio}，每个任务结果 {result}",
    ),
    "card.stage_promised": (
        "{saves} per job creation, stages before it included",
        "每次任务创建 {saves}（含之前各阶段）",
    ),
    "card.stage_member": ("{id} {title}: {word}", "{id} {title}：{word}"),
    "card.stage_unsafe": ("Not safe: {why}.", "不安全：{why}。"),
    "card.stage_cause": ("proposal {id}, because {why}", "建议{id}，因为{why}"),
    "card.stage_effort": ("proposal {id}: {effort}", "建议{id}：{effort}"),
    "card.stage_title": ("Stages 1 to {stage}", "阶段1至{stage}"),
    "card.stage_first": ("Stage 1", "阶段1"),
    "card.costs": ("It costs time.", "反而更慢。"),
    "card.danger": (
        "Doubles were seen up to a repeat after {doubled} ms, none from {free} ms on: by then the "
        "first job is recorded.",
        "重复间隔不超过 {doubled} 毫秒时出现重复任务，从 {free} 毫秒起不再出现："
        "此时第一个任务已登记。",
    ),
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
        "{meaning} ({rule}): {more} ± {half} more per 100,000 {unit} than today ({count} of "
        "{out_of}; today {base})",
        "{meaning}（{rule}）：每十万{unit}比现状多 {more} ± {half}（{out_of} 中 {count} 次；现状 "
        "{base} 次）",
    ),
    "breach.repeat": (
        "{meaning} ({rule}) when a request is repeated on the other instance after {gap} ms: "
        "{more} ± {half} more per 100,000 {unit} than today ({count} of {out_of}; today {base})",
        "请求在 {gap} 毫秒后于另一实例重复时，{meaning}（{rule}）：每十万{unit}比现状多 {more} ± "
        "{half}（{out_of} 中 {count} 次；现状 {base} 次）",
    ),
    "unit.jobs": ("jobs", "任务"),
    "unit.cuts": ("cuts", "次切句"),
    "plain.I1": (
        "a request that reaches both instances at nearly the same time gets two jobs",
        "几乎同时到达两个实例的同一请求会得到两个任务",
    ),
    "plain.I2": ("nodes are given more jobs than they have slots", "节点被分配的任务多于其槽位"),
    "plain.I3": ("answers go missing, or come twice", "答复缺失或重复"),
    "plain.I6": ("answers leave out of order", "答复乱序"),
    "plain.I11": ("a repeated request gets another job", "重复的请求得到另一个任务"),
    "plain.I13": ("sentences are cut too early or too late", "切句过早或过晚"),
    "plain.I14": ("sentences are cut at other places than today", "切句位置与现状不同"),
    "plain.other": ("it breaks what works today", "它破坏了现有的正确行为"),
    "cause.1": ("All steps share one snapshot.", "所有步骤共用一个快照。"),
    "cause.2": (
        "It drops the second look under the request lock, which is what the lock is for.",
        "它去掉了请求锁内的复查，而这正是加锁的目的。",
    ),
    "cause.3": (
        "One reading of the clock serves two purposes: the timer for silence starts too early.",
        "同一次时钟读数被用于两个目的：静音计时的起点过早。",
    ),
    "cause.4": ("Two updates become one.", "两次更新合并为一次。"),
    "cause.5": ("Readers no longer exclude each other.", "读者之间不再互斥。"),
    "cause.6": (
        "A remembered choice of node is reused although the node has filled up since.",
        "缓存的节点选择在该节点已满后仍被复用。",
    ),
    "rule.I1": ("two jobs for one utterance", "同一句话产生两个任务"),
    "rule.I2": ("a node held more jobs than it has slots", "节点承担的任务多于槽位"),
    "rule.I3": ("not exactly one answer", "答复不是恰好一次"),
    "rule.I6": ("answers out of order", "答复乱序"),
    "rule.I11": ("a repeated request got another job", "重复请求得到了另一个任务"),
    "rule.I13": ("cut too early or too late", "切句过早或过晚"),
    "rule.I14": ("cuts at other places", "切句位置不同"),
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
