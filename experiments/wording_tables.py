"""
The texts of the report's tables as (English, Chinese), by message id: columns, titles, notes, rows.

Pure data; `wording` reads it. A name in braces is a value that the run supplies.
"""

from __future__ import annotations

from typing import Final

TABLE_TEXTS: Final[dict[str, tuple[str, str]]] = {
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
    "column.growth": ("growth", "增长"),
    "column.jobs": ("jobs", "任务数"),
    "column.violations": ("violations", "违反次数"),
    "column.rate": ("per 100,000", "每十万"),
    "column.more_than_base": (
        "more than the base, per 100,000",
        "每十万比基准多",
    ),
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
    "column.jobs_per_session": ("jobs per session", "每会话任务数"),
    "column.cut_by_pause": ("cuts made by a pause", "由停顿切出"),
    "column.disordered": ("answers out of order (I6)", "答复乱序 (I6)"),
    "column.create": ("job creation", "任务创建"),
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
        "confirmed: the 95 % interval of the saving meets the promised range; not told from 0: it "
        "holds 0 as well; unsafe: breaks what the base keeps. A number with s is the safe form. "
        "More than the base: violations, paired, of the invariant broken most (I14: per 100,000 "
        "cuts).",
        "属实：节省的95%区间与预期范围相交；与 0 无法区分：区间也包含 0；"
        "不安全：破坏了基准所保持的约束。编号带 s 的是安全形式。"
        "比基准多：与基准配对的违反次数之差，取最严重的一项约束（I14 按每十万次切句计）。",
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
        "Means with 95 % intervals over replications; a figure without one was the same in all.",
        "均值与95%区间（跨重复实验）；没有区间的数值在各次实验中相同。",
    ),
    "percentiles.title": ("Latency percentiles of every variant", "各方案的延迟百分位数"),
    "percentiles.note": (
        "Each percentile per replication, then the interval across replications.",
        "先在每次重复实验内取百分位，再计算跨实验区间。",
    ),
    "overloaded.title": ("Overloaded: no mean can be trusted", "过载：任何平均值都不可信"),
    "overloaded.note": (
        "Work piled up for as long as these ran, so their latencies say how long that was.",
        "这些方案运行期间任务持续积压，其延迟只反映运行了多久。",
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
    "pauses.title": (
        "Not in the report: utterances of a single chunk (phase {phase})",
        "报告未提及：单个音频块的语句（Phase{phase}）",
    ),
    "pauses.note": (
        "A pause between two chunks cuts what is held, the chunk that ends the pause included. "
        "Where the silence before it has already cut, that chunk is all there is: an utterance of "
        "its own. pause_cut=held cuts only audio that waited through the pause; all other cuts "
        "stay.",
        "两个音频块之间的停顿会切出已缓存的全部音频，包括结束停顿的那一块。若此前的静音已经切句，"
        "则只剩这一块，被单独切成一句。pause_cut=held 只切经历了停顿的音频；其余切句不变。",
    ),
    "unpriced.title": ("Steps that the report does not price", "报告未给出耗时的步骤"),
    "unpriced.note": (
        "They take the reference model's figures and are part of every latency above.",
        "采用 reference 模型的数值，已计入以上所有延迟。数据来源按原文（英文）引用。",
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
}
