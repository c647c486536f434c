"""
How many nodes and instances a number of speakers needs: `simsched experiment size`.

A configuration is good only if the upper end of the 95 % interval of its p95 lies below the bound
while its backlog does not grow and next to no job fails; bad if the lower end lies above, or either
of the others shows. Replications are added until one of the two is certain or the cap is reached:
then it counts as not good, since nobody should build on it. Bisection takes for granted that more
nodes never hurt; where that fails, as with costs that grow with the nodes, the search says so.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Any, Final, Literal

from simsched.errors import ConfigError
from simsched.experiments.backlog import grows, steady
from simsched.experiments.intervals import Estimate, format_estimate, mean, t_interval
from simsched.experiments.measure import measure
from simsched.experiments.metrics import METRICS
from simsched.experiments.runs import Replication, Window
from simsched.experiments.scenario_fields import read_scenario
from simsched.models.fields import meant
from simsched.models.world import SETTLE_NS, Scenario, simulate
from simsched.presets import parse_policy
from simsched.units import SECOND

Verdict = Literal["good", "bad", "uncertain"]

REPLICATIONS_MIN: Final = 4
FAILED_MAX: Final = 0.01
ABOVE: Final = "above the bound"
NODES_MAX: Final = 10_000
INSTANCES_MAX: Final = 16
WARMUP_S: Final = 2
"""Until then nodes fill up."""

ASKED: Final = ("policy", "costs", "metric", "seed", "replications")
"""What a search takes beside the question itself."""

SETTINGS: Final[Mapping[str, Any]] = {
    "cores": 4,
    "slots": 4,
    "horizon_s": 10,
    "drain_s": 10,
    "workload": {
        "arrivals": {"kind": "poisson", "rate_per_s": 1.0},
        "utterances": 1,
        "mode": "utterance",
        "speech": {"kind": "lognormal", "mean_s": 5, "scv": 0.6, "most_s": 20},
        "pause": {"kind": "exponential", "mean_ms": 600, "offset_ms": 3200},
    },
}
"""The scenario of every probe; nodes, instances, costs and the rate come on top."""

SECONDS_PER_UTTERANCE: Final = 8.8
"""A speaker's turn and the pause after it, by the means of `SETTINGS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One configuration that was tried; `p95` in ms, None if nothing was measured."""

    nodes: int
    instances: int
    verdict: Verdict
    p95: Estimate | None
    reason: str

    def __str__(self) -> str:
        p95 = "nothing measured" if self.p95 is None else format_estimate(self.p95)
        return (
            f"{self.nodes} nodes, {self.instances} instances: p95 {p95}, {self.verdict}"
            f"{f' ({self.reason})' if self.reason else ''}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeResult:
    """
    The smallest configuration found good, and what was tried on the way.

    `best` is None if none is: then `probes` say why. `command` repeats the whole search.
    """

    speakers: int
    p95_ms: float
    metric: str
    best: Probe | None
    probes: tuple[Probe, ...]
    command: str

    def __str__(self) -> str:
        if self.best is None or self.best.p95 is None:
            answer = f"no configuration tried serves {self.speakers:,} speakers"
        else:
            answer = (
                f"{self.speakers:,} speakers need {self.best.nodes} nodes and "
                f"{self.best.instances} instances: {self.metric} p95 "
                f"{format_estimate(self.best.p95)}, below {self.p95_ms:g} ms"
            )
        return f"{answer}\nrepeat with: {self.command}"


@dataclass(slots=True)
class _Search:
    """The probes of one search, each run once."""

    speakers: int
    p95_ms: float
    policy: str
    costs: str
    metric: str
    seed: int
    most: int
    say: Callable[[str], None]
    found: dict[tuple[int, int], Probe] = field(default_factory=dict)

    def scenario(self, nodes: int, instances: int) -> Scenario:
        table = dict(SETTINGS) | {"nodes": nodes, "instances": instances, "costs": self.costs}
        read = read_scenario(table, "size", policy=parse_policy(self.policy, "--policy")).scenario
        rate = self.speakers / SECONDS_PER_UTTERANCE
        return _at_rate(read, rate)

    def probe(self, nodes: int, instances: int) -> Probe:
        """The verdict on one configuration."""
        known = self.found.get((nodes, instances))
        if known is not None:
            return known
        scenario = self.scenario(nodes, instances)
        last = SETTLE_NS + (scenario.horizon_ns or 0)
        window = Window(SETTLE_NS + WARMUP_S * SECOND, last)
        runs: list[Replication] = []
        while True:
            # The seed and the replication's number alone: every probe hears the same speakers.
            result = simulate(scenario, seed=self.seed, replication=len(runs))
            runs.append(measure(result, "size", scenario, window))
            if len(runs) < min(REPLICATIONS_MIN, self.most):
                continue
            verdict, p95, reason = judge(runs, self.metric, self.p95_ms)
            if verdict != "uncertain" or len(runs) >= self.most:
                break
        probe = Probe(nodes=nodes, instances=instances, verdict=verdict, p95=p95, reason=reason)
        self.found[nodes, instances] = probe
        self.say(str(probe))
        return probe

    def fewest_nodes(self, instances: int) -> Probe | None:
        """The fewest nodes that are good with so many instances: doubling, then bisection."""
        bad, good = 0, 1
        while self.probe(good, instances).verdict != "good":
            if good >= NODES_MAX or not self._more_help(good):
                return None
            bad, good = good, min(2 * good, NODES_MAX)
        while good - bad > max(1, good // 50):
            middle = (bad + good) // 2
            if self.probe(middle, instances).verdict == "good":
                good = middle
            else:
                bad = middle
        return self.probe(good, instances)

    def _more_help(self, nodes: int) -> bool:
        """Whether a shortage of nodes can be the reason: four times what the work needs is none."""
        demand = self.speakers / SECONDS_PER_UTTERANCE * _work_s(self.scenario(1, 1))
        return nodes * int(SETTINGS["slots"]) < 4 * demand or nodes < 8


def _at_rate(scenario: Scenario, utterances_per_s: float) -> Scenario:
    return replace(scenario, workload=scenario.workload.with_rate(utterances_per_s))


def _work_s(scenario: Scenario) -> float:
    """A node's work on one utterance."""
    return scenario.service.mean_ns(scenario.workload.mean_audio_s * 1_000) / SECOND


def judge(
    runs: list[Replication], metric: str, bound_ms: float
) -> tuple[Verdict, Estimate | None, str]:
    """Whether these replications prove the bound kept, or broken; the p95, and why not."""
    name = f"{metric}_p95"
    values = [run.metrics[name] for run in runs if name in run.metrics]
    p95 = t_interval(values, unit="ms") if values else None
    failed = mean([run.metrics.get("failed_share", 0.0) for run in runs])
    growth = grows(runs, "system")
    if p95 is None:
        return "bad", None, "no operation ended"
    if growth is not None:
        return "bad", p95, f"overload: backlog grows by {format_estimate(growth)}"
    if failed > FAILED_MAX:
        return "bad", p95, f"{failed:.1%} of the jobs fail"
    if p95.low > bound_ms:
        return "bad", p95, ABOVE
    if not steady(runs, "system"):
        return "uncertain", p95, "the backlog may grow"
    if p95.high < bound_ms:
        return "good", p95, ""
    return "uncertain", p95, "the interval meets the bound"


def size(
    speakers: int,
    p95_ms: float,
    *,
    policy: str = "safe",
    costs: str = "reference",
    metric: str = "create_job_ms",
    seed: int = 1,
    replications: int = 20,
    say: Callable[[str], None] = print,
) -> SizeResult:
    """
    Find the fewest instances that can do it, and then the fewest nodes.

    Args:
        speakers: who speak at the same time.
        p95_ms: the bound on the metric's 95th percentile, in ms.
        policy: preset and changes.
        costs: a cost model's name or path.
        metric: a latency, e.g. `create_job_ms` or `end_to_end_ms`.
        seed: of all probes.
        replications: at most so many per probe.
        say: is told every probe; the answer is the result's own text.

    Raises:
        ConfigError: an unknown policy, cost model or metric, or a number out of range.

    """
    _check(speakers, p95_ms, metric, replications)
    search = _Search(speakers, p95_ms, policy, costs, metric, seed, replications, say)
    best, instances = None, 1
    while best is None and instances <= INSTANCES_MAX:
        best = search.fewest_nodes(instances)
        instances *= 2
    if best is not None and best.instances > 2:
        best = _fewer_instances(search, best)
    asked = (policy, costs, metric, seed, replications)
    return SizeResult(
        speakers=speakers, p95_ms=p95_ms, metric=metric, best=best,
        probes=tuple(search.found.values()), command=_command(speakers, p95_ms, asked),
    )  # fmt: skip


def _command(speakers: int, p95_ms: float, asked: tuple[str, str, str, int, int]) -> str:
    """What repeats a search."""
    defaults = signature(size).parameters
    words = ["simsched", "experiment", "size", "--speakers", str(speakers), "--p95", f"{p95_ms:g}"]
    for name, value in zip(ASKED, asked, strict=True):
        if value != defaults[name].default:
            words += [f"--{name}", str(value)]
    return shlex.join(words)


def _fewer_instances(search: _Search, best: Probe) -> Probe:
    """Between the last power of two that failed and this one."""
    bad, good = best.instances // 2, best
    while good.instances - bad > 1:
        middle = (bad + good.instances) // 2
        found = search.fewest_nodes(middle)
        if found is None:
            bad = middle
        else:
            good = found
    return good


def _check(speakers: int, p95_ms: float, metric: str, replications: int) -> None:
    if speakers < 1:
        raise ConfigError("size", "--speakers", f"must be at least 1, not {speakers}")
    if not p95_ms > 0:
        raise ConfigError("size", "--p95", f"must be above 0 ms, not {p95_ms:g}")
    if replications < 2:
        raise ConfigError("size", "--replications", "must be at least 2: one has no interval")
    known = [name.removesuffix("_p95") for name in METRICS if name.endswith("_p95")]
    if metric not in known:
        raise ConfigError("size", "--metric", f"unknown metric {metric!r}; {meant(metric, known)}")
