"""
Worker nodes: they register, say how they are, and run what they are given.

A node runs at most `slots` jobs at once; what comes beyond waits in its own queue (the reference's
scheduler over-admits, and somebody has to bear it) or is refused with a code. Service times come
from `service`, keyed by session, utterance and language, so they are the same in every variant.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from simsched.languages import LanguageCapabilities
from simsched.messages import (
    Capability,
    Device,
    Extra,
    InstalledService,
    JobAck,
    JobAssign,
    JobCancel,
    JobResult,
    NodeFailure,
    NodeHeartbeat,
    ResourceUsage,
    ServiceStatus,
    ServiceTimings,
    ServiceType,
)
from simsched.models.service import ServiceModel, StageTimes
from simsched.models.tasks import Kernel
from simsched.models.wakes import Call
from simsched.nodes import InstalledService as ServiceRecord
from simsched.nodes import NodeRecord
from simsched.telemetry import Event, NodeRunning
from simsched.units import MS

SERVICES: Final = tuple(
    InstalledService(
        service_id=f"{name}-1",
        type=ServiceType(name),
        device=Device.GPU,
        status=ServiceStatus.RUNNING,
    )
    for name in ("asr", "nmt", "tts", "semantic")
)
CAPABILITIES: Final = tuple(
    Capability(type=ServiceType(name), ready=True) for name in ("asr", "nmt", "tts", "semantic")
)
HEARD: Final = "hello"
SAID: Final = "你好"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """What one node is."""

    node_id: str
    slots: int
    languages: tuple[str, ...]
    home: int
    speed: float = 1.0
    overflow: str = "queue"
    acknowledges: bool = False

    def record(self) -> NodeRecord:
        """What it says when it registers."""
        return NodeRecord(
            node_id=self.node_id,
            ordinal=0,
            registered_ns=0,
            last_heartbeat_ns=0,
            slots=self.slots,
            services=tuple(
                ServiceRecord(service_id=s.service_id, type=s.type, status=s.status)
                for s in SERVICES
            ),
            ready_types=tuple(c.type for c in CAPABILITIES),
            languages=LanguageCapabilities(
                asr=self.languages, tts=self.languages, semantic=self.languages
            ),
        )


class Worker:
    """One simulated node."""

    def __init__(
        self,
        kernel: Kernel,
        spec: WorkerSpec,
        service: ServiceModel,
        *,
        run_key: int,
        now_ms: Callable[[], int],
        plan_of: Callable[[str, int], tuple[int, int, int]],
        send: Callable[[object], None],
        emit: Callable[[Event], None],
    ) -> None:
        self.spec = spec
        self._kernel = kernel
        self._service = service
        self._run_key = run_key
        self._now_ms = now_ms
        self._plan_of = plan_of
        self._send = send
        self._emit = emit
        self._running: dict[tuple[str, int], tuple[JobAssign, Call]] = {}
        self._line: deque[JobAssign] = deque()
        self.busy_ns = 0

    def receive(self, message: object) -> None:
        """The scheduler's message."""
        if isinstance(message, JobAssign):
            self._take(message)
        elif isinstance(message, JobCancel):
            self._cancel(message.job_id)

    def _take(self, job: JobAssign) -> None:
        if self.spec.acknowledges:
            self._send(
                JobAck(
                    job_id=job.job_id, attempt_id=job.attempt_id, node_id=self.spec.node_id,
                    session_id=job.session_id, trace_id=job.trace_id,
                )
            )  # fmt: skip
        if (job.job_id, job.attempt_id) in self._running:
            self._send(self._failure(job, "PROCESSING_ERROR"))
        elif len(self._running) < self.spec.slots:
            self._start(job)
        elif self.spec.overflow == "queue":
            self._line.append(job)
        else:
            self._send(self._failure(job, "NODE_OVERLOADED"))

    def _start(self, job: JobAssign) -> None:
        session_key, order, audio_ms = self._plan_of(job.session_id, job.utterance_index)
        times = self._service.times(
            self._run_key, session_key, job.utterance_index, job.tgt_lang, audio_ms,
            order=order, speed=self.spec.speed,
        )  # fmt: skip
        self.busy_ns += times.total_ns
        key = (job.job_id, job.attempt_id)
        call = self._kernel.call_at(
            self._kernel.now + times.total_ns, lambda: self._done(job, times)
        )
        self._running[key] = (job, call)
        self._tell(job, started=True)

    def _done(self, job: JobAssign, times: StageTimes) -> None:
        del self._running[(job.job_id, job.attempt_id)]
        self._tell(job, started=False)
        self._next()
        self._send(self._result(job, times))

    def _next(self) -> None:
        if self._line and len(self._running) < self.spec.slots:
            self._start(self._line.popleft())

    def _tell(self, job: JobAssign, *, started: bool) -> None:
        self._emit(
            NodeRunning(
                at_ns=self._kernel.now, instance="", node=self.spec.node_id, job=job.job_id,
                attempt=job.attempt_id, running=len(self._running) + len(self._line),
                slots=self.spec.slots, started=started,
            )
        )  # fmt: skip

    def _cancel(self, job_id: str) -> None:
        for waiting in [job for job in self._line if job.job_id == job_id]:
            self._line.remove(waiting)
        for key in [key for key in self._running if key[0] == job_id]:
            job, call = self._running.pop(key)
            call.cancel()
            self._tell(job, started=False)
            self._next()

    def _result(self, job: JobAssign, times: StageTimes) -> JobResult:
        timings = ServiceTimings(
            asr_ms=times.asr_ns // MS,
            nmt_ms=times.nmt_ns // MS,
            tts_ms=times.tts_ns // MS,
            total_ms=times.total_ns // MS,
        )
        return JobResult(
            job_id=job.job_id,
            attempt_id=job.attempt_id,
            node_id=self.spec.node_id,
            session_id=job.session_id,
            utterance_index=job.utterance_index,
            success=True,
            trace_id=job.trace_id,
            text_asr=HEARD,
            text_translated=SAID,
            processing_time_ms=times.total_ns // MS,
            node_completed_at_ms=self._now_ms(),
            extra=Extra(service_timings=timings),
        )

    def _failure(self, job: JobAssign, code: str) -> JobResult:
        return JobResult(
            job_id=job.job_id,
            attempt_id=job.attempt_id,
            node_id=self.spec.node_id,
            session_id=job.session_id,
            utterance_index=job.utterance_index,
            success=False,
            trace_id=job.trace_id,
            error=NodeFailure(code=code, message=code),
        )

    def heartbeat(self) -> NodeHeartbeat:
        """What it says of itself now."""
        share = 100.0 * min(1.0, len(self._running) / self.spec.slots) * 0.8
        return NodeHeartbeat(
            node_id=self.spec.node_id,
            timestamp=self._now_ms(),
            resource_usage=ResourceUsage(
                cpu_percent=share / 2,
                gpu_percent=share,
                mem_percent=40.0,
                running_jobs=len(self._running) + len(self._line),
            ),
            installed_services=SERVICES,
            capability_by_type=CAPABILITIES,
        )
