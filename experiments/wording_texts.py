"""
Every text of the report's page as (English, Chinese), by message id.

Pure data; `wording` reads it. A name in braces is a value that the run supplies.
"""

from __future__ import annotations

from typing import Final

TEXTS: Final[dict[str, tuple[str, str]]] = {
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
        "{off} of {all} promises (proposals in each phase) are not borne out as written, and the "
        "report has no baseline: without section 8.1's metrics nobody would have noticed.",
        "{all} 项承诺（各建议在各 Phase）中有 {off} 项未能按原文兑现，而报告没有基线："
        "没有 8.1 节的指标就无人能发现。",
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
        "One claim script instead of phases, leases and locks (safe) saves {create} per job "
        "creation ({percent}), {audio} per chunk, {result} per result (phase {phase}) and breaks "
        "no invariant here (at most {bound} per 100,000 jobs, 95 %).",
        "以一个认领脚本取代分阶段路径、计数与锁（safe 方案）：每次任务创建节省 {create}"
        "（{percent}），每个音频块节省 {audio}，每个结果节省 {result}（Phase{phase}），"
        "且此处未违反任何约束（95% 上界：每十万任务至多 {bound} 次）。",
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
        "nothing broken that the base keeps ({jobs} jobs; 0 seen means at most {bound} per "
        "100,000, 95 %)",
        "未破坏基准所保持的约束（{jobs} 个任务；观察到 0 次，95% 上界为每十万任务 {bound} 次）",
    ),
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
        "{rule}, {meaning}: {count} of {out_of} (base: {base}), {rate} per 100,000; "
        "{more} ± {half} more than the base",
        "{rule}（{meaning}）：{out_of} 中 {count} 次（基准 {base} 次），每十万 {rate} 次；"
        "比基准多 {more} ± {half}",
    ),
    "breach.repeat": (
        "when a request is repeated on the other instance after {gap} ms: {rule}, {meaning}: "
        "{rate} per 100,000 jobs ({count} of {out_of}; base: {base}); {more} ± {half} more",
        "当请求在 {gap} 毫秒后于另一实例重复时：{rule}（{meaning}）：每十万任务 {rate} 次"
        "（{out_of} 中 {count} 次；基准 {base} 次）；多 {more} ± {half}",
    ),
    "rule.I1": ("two jobs for one utterance", "同一句话产生两个任务"),
    "rule.I3": ("not exactly one answer", "答复不是恰好一次"),
    "rule.I6": ("answers out of order", "答复乱序"),
    "rule.I11": ("a repeated request got another job", "重复请求得到了另一个任务"),
    "rule.I13": ("cut too early or too late", "切句过早或过晚"),
    "rule.I14": ("cuts differ from the base's", "切句与基准不同"),
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
    # Columns
    "column.section": ("section", "节"),
    "column.problem": ("problem", "问题"),
    "column.operation": ("per", "频率"),
    "column.reported": ("report: cost = benefit", "报告：影响 = 收益"),
    "column.saves1": ("saves, phase 1", "节省（Phase1）"),
    "column.saves2": ("saves, phase 2", "节省（Phase2）"),
    "column.reported_sum": ("report's total", "报告总计"),
    "column.countable": ("its rows, none twice", "各行合计（不重复）"),
    "column.best1": ("all removed, phase 1", "全部去除（Phase1）"),
    "column.best2": ("all removed, phase 2", "全部去除（Phase2）"),
    "column.method": ("method", "方法"),
    "column.stated1": ("report, phase 1", "报告 Phase1"),
    "column.seen1": ("seen, phase 1", "实测 Phase1"),
    "column.stated2": ("report, phase 2", "报告 Phase2"),
    "column.seen2": ("seen, phase 2", "实测 Phase2"),
    "column.followed": ("followed, and why", "所依据的说法及原因"),
    "column.lock": ("lock", "锁"),
    "column.phase": ("phase", "Phase"),
    "column.stated_mean": ("report: mean hold", "报告：平均持有"),
    "column.seen_mean": ("mean hold", "平均持有"),
    "column.stated_max": ("report: longest", "报告：最大持有"),
    "column.seen_max": ("longest hold", "最大持有"),
    "column.wait_mean": ("mean wait", "平均等待"),
    "column.wait_max": ("longest wait", "最长等待"),
    "column.stated_contention": ("report: contention", "报告：竞争频率"),
    "column.seen_contention": ("had to wait", "需等待的比例"),
    "column.redis_operation": ("operation", "操作"),
    "column.stated_calls": ("report: calls", "报告：次数"),
    "column.seen_calls": ("calls per job", "每任务次数"),
    "column.stated_each": ("report: each", "报告：平均延迟"),
    "column.seen_each": ("each", "平均延迟"),
    "column.stated_total": ("report: total", "报告：总延迟"),
    "column.seen_total": ("total per job", "每任务总延迟"),
    "column.variant": ("variant", "方案"),
    "column.jobs": ("jobs", "任务数"),
    "column.violations": ("violations", "违反次数"),
    "column.rate": ("per 100,000", "每十万"),
    "column.cuts": ("cuts unlike the base's", "与基准不同的切句"),
    "column.cost_key": ("step", "步骤"),
    "column.source": ("where the figure comes from", "数据来源"),
    "column.proposal": ("proposal", "建议"),
    "column.stage": ("stage", "阶段"),
    "column.metric": ("of", "指标"),
    "column.promised": ("promised", "报告预期"),
    "column.saves": ("saves", "节省"),
    "column.verdict": ("verdict", "判定"),
    "column.latency": ("latency", "延迟"),
    "column.published": ("as it is", "现状"),
    "column.stage2": ("stages 1+2", "阶段1+2"),
    "column.stage3": ("stages 1+2+3", "阶段1+2+3"),
    "column.safe": ("safe", "safe"),
    "column.gap": ("repeat after", "重复间隔"),
    "column.policy": ("policy", "策略"),
    "column.doubles": ("double jobs", "重复任务"),
    "column.interval": ("95 % interval", "95% 区间"),
    "column.report_says": ("the report says", "报告的说法"),
    "column.against": ("against it", "与之矛盾"),
    "column.here": ("here", "本研究的做法与数值"),
    # Section 4
    "issues.title": (
        "Problems: what they cost and what removing them saves",
        "重复调用与性能瓶颈总结",
    ),
    "issues.note": (
        "Each call was removed by itself; the saving is per operation and paired with the base. "
        "Read and clone of the snapshot are one call: both rows show its whole saving, once.",
        "每次只去除一种重复调用；节省按单次操作计，并与基准配对比较。"
        "快照的“获取”与“克隆”是同一次调用：两行显示的是同一笔节省。",
    ),
    "issue.snapshot_read": ("repeated snapshot read", "重复的快照获取"),
    "issue.snapshot_clone": ("repeated snapshot clone", "重复的快照克隆"),
    "issue.binding_reads": ("repeated request_binding reads", "重复的request_binding获取"),
    "issue.buffer_calls": ("repeated audio_buffer calls", "audio_buffer重复调用"),
    "issue.group_writes": ("two group_manager write locks", "group_manager多次写锁"),
    "issue.config_reads": ("repeated phase-3 configuration reads", "重复的Phase3配置获取"),
    "issue.session_reads": ("repeated session look-up", "重复的session获取"),
    "issue.group_reads": ("two group_manager reads", "group_manager多次调用"),
    "sums.title": ("Cumulative effect", "累计影响估算"),
    "sums.note": (
        "The report's total for job creation adds the snapshot twice and rows that belong to "
        "chunks and results. The third column adds only rows of that operation, each call once.",
        "报告的任务创建总计把快照计了两次，并混入了属于音频块和结果的行。"
        "第三列只加属于该操作的行，每次调用只计一次。",
    ),
    # Appendices
    "calls.title": ("Method calls per operation", "方法调用统计"),
    "calls.note": (
        "Fewest to most calls of one operation, under published, over all replications.",
        "published 方案下单次操作的最少至最多调用次数，取自全部重复实验。",
    ),
    "followed.appendix": ("the appendix", "附录"),
    "followed.get_last_chunk_at_ms.audio_chunk": (
        "appendix and 3.1 (3); 1.1 draws 2, the code reads 2-3",
        "附录与3.1节（3次）；1.1节画了2次，代码为2–3次",
    ),
    "followed.get_active_group_id.audio_chunk": (
        "the appendix; the code looks only after a pause",
        "附录；代码仅在停顿后才读取",
    ),
    "followed.is_tts_playing.audio_chunk": (
        "the appendix; the code looks only after a pause",
        "附录；代码仅在停顿后才读取",
    ),
    "followed.get_snapshot.create_job": (
        "the text of 1.1: twice; the code also reads per pool tried",
        "1.1节正文：2次；代码中每尝试一个池还会再读",
    ),
    "followed.get_phase3_config_cached.create_job": (
        "the text of 1.1: twice; the code reads it at least five times",
        "1.1节正文：2次；代码至少读取5次",
    ),
    "followed.get_session.job_result": (
        "section 2.1; the code looks connections up by id instead",
        "2.1节；代码实际按连接ID查找",
    ),
    "followed.on_asr_final.job_result": (
        "the appendix; the code takes 5-6 locks for a new group",
        "附录；对新组代码需5–6次锁操作",
    ),
    "followed.get_request_binding.job_result": (
        "section 2.1, several instances only; the code asks for the session's owner",
        "2.1节，仅多实例时；代码查询的是会话的归属实例",
    ),
    "locks.title": ("Lock holds, waits and contention", "锁持有时间与竞争"),
    "locks.note": (
        "session_runtime is held for the lock's own 1-5 ms and for the decision's 1-5 ms inside "
        "(sections 1.1 and 1.2), so its mean exceeds the appendix. The snapshot is cloned inside "
        "the read guard, so the guard is held for both. Where the report says only 'internal "
        "lock' there is one lock per instance.",
        "session_runtime 的持有时间包括加锁本身的1–5ms与锁内决策的1–5ms（1.1、1.2节），"
        "因此均值高于附录。快照在读锁内克隆，故读锁持有时间包含两者。"
        "报告只写“内部锁”之处，按每实例一把锁处理。",
    ),
    "redis.title": ("Redis operations per job (phase 2)", "Redis操作统计（Phase2）"),
    "redis.listed": ("sum of the report's rows", "报告所列合计"),
    "redis.whole": ("all of them", "全部合计"),
    "redis.note": (
        "Rows without a report figure are operations that appendix C leaves out.",
        "没有报告数值的行是附录C遗漏的操作。",
    ),
    # Sections 5, 6, 8, 0
    "proposals.title": ("Proposals: promised and measured", "优化建议：预期与实测"),
    "proposals.note": (
        "confirmed: the 95 % interval of the saving meets the promised range; unsafe: breaks what "
        "the base keeps. A number with s is the safe form.",
        "属实：节省的95%区间与预期范围相交；不安全：破坏了基准所保持的约束。"
        "编号带 s 的是安全形式。",
    ),
    "stages.title": ("Stages: promised and measured", "实施阶段：预期与实测"),
    "stages.note": (
        "The mixed sum adds the savings of a job creation, a chunk and a result, as the report "
        "does; no single latency shrinks by it.",
        "混合合计按报告的做法把任务创建、音频块和结果的节省相加；没有哪一种延迟真正减少这么多。",
    ),
    "stage.upto": ("stages up to {stage}", "阶段1至{stage}"),
    "stage.added": ("stage {stage} alone", "仅阶段{stage}"),
    "monitored.title": ("The five metrics of every variant", "各方案的五项性能指标"),
    "monitored.note": (
        "Means with 95 % intervals over replications.",
        "均值与95%区间（跨重复实验）。",
    ),
    "percentiles.title": ("Latency percentiles of every variant", "各方案的延迟百分位数"),
    "percentiles.note": (
        "Each percentile per replication, then the interval across replications.",
        "先在每次重复实验内取百分位，再计算跨实验区间。",
    ),
    "claim.title": ("20–30 % less latency: of which?", "“减少20–30%的延迟”：哪一种延迟？"),
    "claim.note": (
        "The report names neither the latency nor a baseline; these are all candidates.",
        "报告既未说明是哪一种延迟，也未给出基线；此处列出全部候选。",
    ),
    "safety.title": ("Broken invariants", "约束违反情况"),
    "safety.note": (
        "Zero is printed with its upper bound 3/n (95 %). Violations under published are faults "
        "that the reference has today; a proposal is blamed only for what it adds.",
        "零次附有95%上界3/n。published 下的违反是现有系统已有的缺陷；建议只对其新增部分负责。",
    ),
    "repeated.title": (
        "Proposal 2: double jobs against the gap of the repeat",
        "建议2：重复任务与重复间隔",
    ),
    "repeated.note": (
        "A client repeats its request on the other instance after the gap (reconnect, retry). The "
        "share of requests repeated is that of the study file.",
        "客户端在该间隔后于另一实例重复请求（重连、重试）；重复比例见研究文件。",
    ),
    "unpriced.title": ("Steps that the report does not price", "报告未给出耗时的步骤"),
    "unpriced.note": (
        "They take the reference model's figures and are part of every latency above.",
        "采用 reference 模型的数值，已计入以上所有延迟。",
    ),
    # Contradictions
    "contradictions.title": (
        "Where the report contradicts itself or the code",
        "报告的自相矛盾之处",
    ),
    "contradictions.note": (
        "What the code does is known from the reference's sources, not from this run.",
        "“代码”一列的事实来自参考实现的源码，而非本次运行。",
    ),
    "contra.live.says": ("analyses the live flow", "分析的是线上流程"),
    "contra.live.but": (
        "create_job is marked dead in the code; another scheduler was live",
        "代码中 create_job 已标记为废弃，线上是另一条路径",
    ),
    "contra.live.here": ("the report's flow is simulated", "按报告的流程仿真"),
    "contra.chunk_reads.says": ("get_last_chunk_at_ms 3 times", "get_last_chunk_at_ms 调用3次"),
    "contra.chunk_reads.but": ("1.1 draws it twice", "1.1节只画了2次"),
    "contra.chunk_reads.here": ("{chunk_reads} calls per chunk", "每块 {chunk_reads} 次"),
    "contra.group_reads.says": (
        "active group and playback are read on every chunk",
        "每个音频块都读取活跃组与播放状态",
    ),
    "contra.group_reads.but": ("the code reads them after a pause only", "代码仅在停顿后读取"),
    "contra.group_reads.here": ("on every chunk, as the report", "按报告，每块读取"),
    "contra.bindings.says": (
        "three GETs inside create_job_with_phase2_lock",
        "create_job_with_phase2_lock 内3次GET",
    ),
    "contra.bindings.but": (
        "one before it, two inside; the third is the check under the lock and must stay",
        "其前1次、其内2次；第三次是锁内复查，不可去掉",
    ),
    "contra.bindings.here": ("at most {bindings} per creation", "每次创建至多 {bindings} 次"),
    "contra.snapshots.says": ("snapshot and configuration 1-2 times", "快照与配置1–2次"),
    "contra.snapshots.but": (
        "the code reads once more per pool tried, the configuration at least five times",
        "代码每尝试一个池多读一次快照，配置至少5次",
    ),
    "contra.snapshots.here": ("at most {snapshots} snapshots", "快照至多 {snapshots} 次"),
    "contra.forward.says": (
        "a result is forwarded by get_request_binding",
        "按 get_request_binding 转发结果",
    ),
    "contra.forward.but": ("the code asks who owns the session", "代码查询会话归属实例"),
    "contra.forward.here": ("the binding, as the report", "按报告，读取 binding"),
    "contra.get_session.says": (
        "UI events and sending each look the session up",
        "UI事件与发送各获取一次session",
    ),
    "contra.get_session.but": ("neither does in the code", "代码中两者都不获取"),
    "contra.get_session.here": ("both, as the report", "按报告，各一次"),
    "contra.group_writes.says": (
        "one write each for ASR and NMT",
        "on_asr_final 与 on_nmt_done 各一次写锁",
    ),
    "contra.group_writes.but": (
        "5-6 lock operations for a new group",
        "新组需5–6次锁操作",
    ),
    "contra.group_writes.here": ("one each, as the report", "按报告，各一次"),
    "contra.redis.says": ("five Redis operations, 9-35 ms", "5次Redis操作，9–35ms"),
    "contra.redis.but": (
        "leaves out the SET of the binding, the unlock and what a dispatch does",
        "遗漏了写入binding、解锁以及派发时的操作",
    ),
    "contra.redis.here": ("all are charged; see appendix C below", "全部计入，见下方附录C表"),
    "contra.twice.says": (
        "snapshot read and snapshot clone each cost 10-50 ms",
        "快照获取与快照克隆各10–50ms",
    ),
    "contra.twice.but": (
        "they are one call, counted twice; the code's clone copies a pointer",
        "二者是同一次调用，被计了两次；代码中的克隆只复制指针",
    ),
    "contra.twice.here": (
        "a read holds {read} ms, of which {clone} ms are the clone; removing one saves {saved}",
        "一次获取持有 {read} ms，其中克隆 {clone} ms；去掉一次节省 {saved}",
    ),
    "contra.mixed.says": (
        "28-131 ms and 21-96 ms per job creation",
        "单次任务创建28–131ms、21–96ms",
    ),
    "contra.mixed.but": (
        "adds savings per chunk and per result to those per creation",
        "把每音频块、每结果的节省加进了每次创建",
    ),
    "contra.mixed.here": (
        "mixed sum {mixed}: creation {create}, chunk {audio}, result {result}",
        "混合合计 {mixed}：创建 {create}，音频块 {audio}，结果 {result}",
    ),
    "contra.unconnected.says": ("20-30 %, 28-131 ms, 21-96 ms", "20–30%、28–131ms、21–96ms"),
    "contra.unconnected.but": (
        "three figures without a baseline that connects them",
        "三个数字之间没有基线可以换算",
    ),
    "contra.unconnected.here": (
        "all stages: {percent} of a creation, {percent_all} end to end",
        "全部阶段：任务创建 {percent}，端到端 {percent_all}",
    ),
    "contra.decides.says": (
        "the pool decision is repeated in phase 1 and phase 2",
        "Phase1与Phase2重复做池决策",
    ),
    "contra.decides.but": (
        "a second one only after phase 2 came to nothing",
        "仅在Phase2无结果时才有第二次",
    ),
    "contra.decides.here": ("at most {decides} per creation", "每次创建至多 {decides} 次"),
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
        "The one with the fewest changes of side ({switches}):",
        "切换次数最少的一种（{switches} 次）：",
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
    "method.repeat": ("Repeat it", "复现命令"),
    "method.digest": ("Digest of all runs", "全部运行的摘要"),
    "method.sizes": ("{jobs} jobs in {runs} runs", "{runs} 次运行，共 {jobs} 个任务"),
}
