"""How the simulated runtime charges, contends and records steps."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from simsched import steps
from simsched.models.charges import Charge, FixedCharge, charge_for
from simsched.models.distributions import Lognormal
from simsched.models.record import (
    RESOURCE_CORE,
    RESOURCE_LOCK,
    OperationRecorder,
    StepRecorder,
)
from simsched.models.runtime import EPOCH_MS, Execution, SimRuntime
from simsched.models.tasks import Kernel
from simsched.ports import Runtime
from simsched.telemetry import Event, Operation, OpKind
from simsched.units import MS


class Mute:
    def event(self, event: Event) -> None:
        pass

    def count(self, name: str, amount: int = 1) -> None:
        pass


class Bench:
    """One instance, its recorders, and where its steps went."""

    def __init__(
        self,
        charges: Charge | Sequence[Charge],
        execution: Execution = "threads",
        cores: int = 1,
        session_scoped: frozenset[str] = frozenset(),
    ) -> None:
        self.kernel = Kernel()
        self.operations = OperationRecorder()
        self.rows: list[tuple[int, ...]] = []
        self.steps = StepRecorder(sink=self._keep, operations=self.operations)
        if isinstance(charges, Charge):
            charges = [charges] * len(steps.CATALOGUE)
        self.runtime = SimRuntime(
            self.kernel,
            "s1",
            charges=charges,
            steps=self.steps,
            operations=self.operations,
            telemetry=Mute(),
            run_key=5,
            execution=execution,
            cores=cores,
            session_scoped=session_scoped,
        )

    def _keep(self, chunk: Any) -> None:
        self.rows += chunk.tolist()

    def run_simultaneously(self, *wanted: tuple[steps.Step, str]) -> list[int]:
        """Each step in a task of its own, all at once; when each body ran."""
        times: list[int] = [-1] * len(wanted)
        op = self.runtime.begin(OpKind.CONTROL, 1, 1)

        async def one(place: int, step: steps.Step, key: str) -> None:
            async with self.runtime.step(step, op, key=key, n=2, site=place):
                times[place] = self.runtime.now()

        async def main() -> None:
            async with self.runtime.scope() as scope:
                for place, (step, key) in enumerate(wanted):
                    scope.spawn(one(place, step, key), name=step.name)
            self.runtime.end(op)

        self.kernel.run(main())
        self.steps.flush()
        return times


def as_port(runtime: SimRuntime) -> Runtime:
    """The type checker's proof that the port is met."""
    return runtime


WRITE = (steps.JOBS_WRITE, "")
READ = (steps.JOBS_READ, "")
OTHER = (steps.ADD_CHUNK, "")
CPU = (steps.POOL_DECIDE, "")
SPAN = (steps.SESSION_RUNTIME, "")


@pytest.mark.parametrize(
    ("execution", "cores", "wanted", "expected"),
    [
        ("threads", 1, [WRITE, WRITE, READ, READ], [10, 20, 30, 30]),
        ("threads", 1, [WRITE, OTHER, CPU, CPU], [10, 10, 10, 20]),
        ("threads", 2, [CPU, CPU, CPU], [10, 10, 20]),
        ("threads", 1, [SPAN, SPAN, WRITE], [10, 20, 10]),
        ("loop", 4, [WRITE, READ, OTHER, CPU], [10, 20, 30, 40]),
        ("loop", 1, [SPAN, SPAN, WRITE], [10, 20, 10]),
        ("threads", 1, [(steps.HANGOVER, ""), WRITE], [0, 10]),
    ],
)
def test_steps_contend_for_what_their_kind_and_the_execution_say(
    execution: Execution, cores: int, wanted: list[tuple[steps.Step, str]], expected: list[int]
) -> None:
    """Threads contend for locks and cores, a loop does one thing after another."""
    bench = Bench(FixedCharge(10), execution, cores)

    assert bench.run_simultaneously(*wanted) == expected


def test_a_session_scoped_lock_is_one_for_each_key() -> None:
    """Two sessions do not wait for one another, and what is forgotten takes no room."""
    bench = Bench(FixedCharge(10), session_scoped=frozenset({"jobs"}))
    times = bench.run_simultaneously(
        (steps.JOBS_WRITE, "a"), (steps.JOBS_WRITE, "b"), (steps.JOBS_WRITE, "a")
    )

    bench.runtime.forget("a")
    bench.runtime.forget("b")
    bench.runtime.forget("never seen")

    assert times == [10, 10, 20]
    assert not bench.runtime._session_locks


def test_a_shared_lock_is_one_for_all_keys() -> None:
    """Unless the cost model scopes it, the key does not matter."""
    bench = Bench(FixedCharge(10))

    assert bench.run_simultaneously((steps.JOBS_WRITE, "a"), (steps.JOBS_READ, "b")) == [10, 20]


def test_a_record_tells_where_the_time_went() -> None:
    """Start, wait, hold, operation, size, step, site and resource."""
    bench = Bench(FixedCharge(10))
    bench.run_simultaneously(WRITE, WRITE, CPU)

    kind_phase = OpKind.CONTROL << 2
    write, cpu = steps.JOBS_WRITE.index, steps.POOL_DECIDE.index
    assert bench.rows == [
        (0, 0, 10, 1, 2, write, 0, 0, kind_phase, RESOURCE_LOCK),
        (0, 0, 10, 1, 2, cpu, 0, 2, kind_phase, RESOURCE_CORE),
        (10, 10, 10, 1, 2, write, 0, 1, kind_phase, RESOURCE_LOCK),
    ]


def test_a_spanning_hold_lasts_until_the_body_ends() -> None:
    """Its own cost and what the body waited."""
    bench = Bench(FixedCharge(10))
    runtime = bench.runtime

    async def main() -> None:
        op = runtime.begin(OpKind.CONTROL, 1, 1)
        async with runtime.step(steps.SESSION_RUNTIME, op):
            await runtime.sleep(25)

    bench.kernel.run(main())
    bench.steps.flush()

    assert [row[:3] for row in bench.rows] == [(0, 0, 35)]


def test_a_draw_depends_on_operation_step_and_site_alone() -> None:
    """Leaving a call out does not change what the others cost."""
    charge = charge_for(Lognormal(median_ns=20_000, sigma=0.5))

    def holds(sites: Sequence[int]) -> dict[int, int]:
        bench = Bench(charge)

        async def main() -> None:
            op = bench.runtime.begin(OpKind.CREATE_JOB, 7, 3)
            for site in sites:
                async with bench.runtime.step(steps.JOBS_READ, op, site=site):
                    pass

        bench.kernel.run(main())
        bench.steps.flush()
        return {row[7]: row[2] for row in bench.rows}

    all_sites, fewer = holds(range(6)), holds([0, 2, 5])

    assert len(set(all_sites.values())) == 6
    assert fewer == {site: all_sites[site] for site in (0, 2, 5)}


def test_operations_have_keys_of_their_own() -> None:
    """Another kind, entity or index is another key; ids count up; the stamp is Unix time."""
    runtime = Bench(FixedCharge(0)).runtime
    ops = [runtime.begin(*what) for what in ((0, 1, 1), (1, 1, 1), (0, 2, 1), (0, 1, 2))]

    assert len({op.key for op in ops}) == 4
    assert [op.id for op in ops] == [1, 2, 3, 4]
    assert runtime.begin(0, 1, 1).key == ops[0].key
    assert runtime.now_ms() == EPOCH_MS


def test_latencies_are_exact_and_calls_are_counted_per_operation() -> None:
    """By the phase that the operation has at its end, with the fewest and the most calls."""
    bench = Bench(FixedCharge(10))
    runtime = bench.runtime

    async def job(reads: int, phase: int) -> None:
        op: Operation = runtime.begin(OpKind.CREATE_JOB, 1, reads)
        for _ in range(reads):
            async with runtime.step(steps.JOBS_READ, op):
                pass
            bench.steps.flush()
        op.phase = phase
        async with runtime.step(steps.POOL_DECIDE, op):
            pass
        runtime.end(op, 1)
        runtime.end(op, 2)

    async def main() -> None:
        for reads, phase in ((3, 1), (1, 1), (0, 1), (2, 2)):
            await job(reads, phase)

    bench.kernel.run(main())
    bench.steps.flush()
    columns = bench.operations.columns()
    calls = bench.operations.calls(OpKind.CREATE_JOB, 1)
    read, cpu = calls[steps.JOBS_READ.index], calls[steps.POOL_DECIDE.index]

    assert columns["latency_ns"].tolist() == [40, 20, 10, 30]
    assert columns["phase"].tolist() == [1, 1, 1, 2]
    assert columns["outcome"].tolist() == [1, 1, 1, 1]
    assert (read.calls, read.operations_with, read.fewest, read.most) == (4, 2, 0, 3)
    assert (cpu.calls, cpu.operations_with, cpu.fewest, cpu.most) == (3, 3, 1, 1)


def busy_digest() -> str:
    """A contended run with draws."""
    bench = Bench(charge_for(Lognormal(median_ns=20_000, sigma=0.5)))
    runtime = bench.runtime

    async def body(entity: int) -> None:
        for index in range(20):
            op = runtime.begin(OpKind.FINALIZE, entity, index)
            async with runtime.step(steps.JOBS_WRITE, op):
                bench.steps.record_event(f"{entity} {index}".encode())
            async with runtime.step(steps.POOL_DECIDE, op, n=5):
                pass
            await runtime.sleep(MS * (index % 3))
            runtime.end(op)

    async def main() -> None:
        async with runtime.scope() as scope:
            for entity in range(5):
                scope.spawn(body(entity), name=str(entity))

    bench.kernel.run(main())
    return bench.steps.digest()


def test_the_digest_does_not_depend_on_the_hash_seed() -> None:
    """The same run in other processes, under other hash seeds."""
    code = "from tests.models.test_runtime import busy_digest; print(busy_digest())"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout.strip()
        for seed in ("1", "77")
    }

    assert digests == {busy_digest()}


def test_the_digest_sees_every_field_event_and_operation() -> None:
    """One nanosecond, one event or one outcome more is another digest."""

    def digest(wait_ns: int = 0, event: bytes = b"a", outcome: int = 0) -> str:
        operations = OperationRecorder()
        recorder = StepRecorder(operations=operations)
        recorder.add(1, wait_ns, 3, 1, 0, 5, 0, 0, 0, 1)
        recorder.record_event(event)
        operations.end(Operation(0, 0, operations.begin(), "", 0), 9, outcome)
        return recorder.digest()

    assert digest() == digest()
    assert len({digest(), digest(wait_ns=1), digest(event=b"b"), digest(outcome=1)}) == 4


def test_totals_agree_with_the_records() -> None:
    """Counts, sums and maxima exactly, quantiles within the width of a bucket."""
    recorder = StepRecorder()
    rng = np.random.default_rng(1)
    waits = np.where(rng.random(70_000) < 0.5, 0, rng.lognormal(11, 2, 70_000)).astype(int)
    holds = rng.lognormal(10, 1, 70_000).astype(int)
    for wait, hold in zip(waits.tolist(), holds.tolist(), strict=True):
        recorder.add(0, wait, hold, 1, 0, 3, 0, 0, 2 << 2 | 1, RESOURCE_LOCK)
    recorder.add(0, 0, 0, 1, 0, 4, 0, 0, 0, RESOURCE_CORE)

    totals, other = recorder.totals()

    assert (totals.step, totals.kind, totals.phase, totals.resource) == (3, 2, 1, RESOURCE_LOCK)
    assert totals.count == 70_000
    assert totals.contended == int((waits > 0).sum())
    assert (totals.wait_ns, totals.wait_ns_max) == (int(waits.sum()), int(waits.max()))
    assert (totals.hold_ns, totals.hold_ns_max) == (int(holds.sum()), int(holds.max()))
    assert totals.wait_quantile_ns(0.3) == 0
    for share in (0.5, 0.95, 0.99, 0.999):
        exact = np.quantile(holds, share, method="inverted_cdf")
        assert totals.hold_quantile_ns(share) == pytest.approx(exact, rel=0.017)
    assert (other.count, other.hold_quantile_ns(0.99)) == (1, 0)
