"""Promises of the cost models: complete, sourced, as the report says, and hard to misread."""

from __future__ import annotations

import pickle
import statistics
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsched.chance import key_of, mix
from simsched.errors import ConfigError
from simsched.models.cost_files import PACKAGED
from simsched.models.prices import CostModel
from simsched.steps import BY_NAME, CATALOGUE, COST_KEYS, LOCKS, Kind

MEAN_RANGES_MS = {
    "session_manager.get_session": (1, 2),
    "audio_buffer.call": (1, 3),
    "group.read": (1, 3),
    "jobs.read": (1, 1),
    "jobs.write": (1, 1),
    "snapshot.read": (5, 10),
    "phase3.read": (1, 1),
    "session_runtime.lock": (1, 5),
    "pool.decide": (1, 5),
    "management.read": (5, 10),
    "redis.get_binding": (1, 5),
    "redis.set_nx_lock": (1, 5),
    "redis.lua_reserve": (5, 15),
    "group.on_asr_final": (1, 5),
    "group.on_nmt_done": (1, 5),
}
"""The report's sections 1-3."""

MAXIMA_MS = {
    "jobs.write": (10, 20),
    "audio_buffer.call": (5, 10),
    "group.on_asr_final": (10, 20),
    "snapshot.read": (20, 50),
}
"""The report's appendix B, for the locks whose hold is one step."""


@pytest.mark.parametrize("name", PACKAGED)
def test_a_packaged_model_prices_every_step_with_a_source(name: str) -> None:
    """Every step has a charge, every Redis step a server's side, every figure a source."""
    model = CostModel.load(name)

    assert tuple(model.prices) == COST_KEYS
    assert len(model.charges()) == len(CATALOGUE)
    assert set(model.scopes) == set(LOCKS)
    assert all(price.source for price in model.prices.values())
    for step in CATALOGUE:
        if step.kind is Kind.REDIS:
            assert model.redis(step).server.mean_ns(0) <= model.redis(step).latency.mean_ns(0)


@pytest.mark.parametrize("key", MEAN_RANGES_MS)
def test_report_means_lie_in_the_reports_ranges(key: str) -> None:
    """The mean of every priced step is inside the step's own range of sections 1-3."""
    low, high = MEAN_RANGES_MS[key]
    price = CostModel.load("report").prices[key]

    assert low * 0.999 <= price.charge.mean_ns(100) / 1e6 <= high * 1.001
    assert price.priced_by == "report"


@pytest.mark.parametrize("key", MAXIMA_MS)
def test_report_holds_have_the_tail_of_appendix_b(key: str) -> None:
    """One hold in a thousand reaches the lock's maximum range, and not beyond it."""
    charge = CostModel.load("report").prices[key].charge
    low, high = MAXIMA_MS[key]

    assert low * 1e6 <= charge.ns(int(0.999 * 2**64), 0) <= high * 1e6


def test_a_whole_hold_of_the_session_lock_stays_within_appendix_b() -> None:
    """Lock and decision together have their p99.9 at 10-15 ms."""
    prices = CostModel.load("report").prices
    lock, decide = prices["session_runtime.lock"].charge, prices["pool.decide"].charge
    key = key_of("session_runtime")
    holds = sorted(
        lock.ns(mix(key, 2 * k), 0) + decide.ns(mix(key, 2 * k + 1), 0) for k in range(40_000)
    )

    assert 10e6 <= holds[int(0.999 * len(holds))] <= 15e6


def test_costs_grow_with_the_nodes_along_the_reports_line() -> None:
    """The low end at 100 nodes, the high end at 1,000, linear between and beyond, never below 0."""
    clone = CostModel.load("report").prices["snapshot.clone"].charge

    assert [clone.ns(0, n) for n in (100, 550, 1000, 1900)] == [
        10**7,
        3 * 10**7,
        5 * 10**7,
        9 * 10**7,
    ]
    assert not clone.is_drawn
    steep = CostModel.load("report", {"costs.select.filter.nodes_range": ["0 ms", "9 ms"]})
    assert steep.prices["select.filter"].charge.ns(0, 1) == 0


def test_what_the_report_does_not_price_is_marked() -> None:
    """Figures taken over from the reference model can be shown apart."""
    foreign = CostModel.load("report").not_priced_by_report()

    assert "redis.script" in foreign
    assert "select.index" in foreign
    assert "select.filter" not in foreign
    assert CostModel.load("reference").not_priced_by_report() == list(COST_KEYS)


def test_zero_costs_nothing() -> None:
    """Under `zero` only queues are left."""
    model = CostModel.load("zero")

    assert all(charge.fixed_ns == 0 for charge in model.charges())
    assert model.redis(BY_NAME["redis.claim"]).server.fixed_ns == 0


@given(bits=st.integers(0, 2**64 - 1), n=st.integers(0, 100_000))
def test_no_cost_is_ever_negative(bits: int, n: int) -> None:
    """Every charge of every model gives a whole number of nanoseconds of at least 0."""
    for model in MODELS:
        for charge in model.charges():
            value = charge.ns(bits, n)
            assert type(value) is int
            assert value >= 0
            assert charge.fixed_ns in (None, value)


MODELS = [CostModel.load(name) for name in PACKAGED]


def test_undrawn_charges_ignore_their_bits() -> None:
    """`is_drawn` may be trusted: without it no random number has to be made."""
    for charge in CostModel.load("reference").charges():
        values = {charge.ns(mix(7, k), 500) for k in range(20)}
        assert (len(values) > 1) == charge.is_drawn


def test_means_are_those_of_the_draws() -> None:
    """A load computed from `mean_ns` is the load that is then charged."""
    for charge in CostModel.load("report").charges():
        drawn = statistics.fmean(charge.ns((2 * i + 1) << 51, 100) for i in range(4096))
        assert drawn == pytest.approx(charge.mean_ns(100), rel=5e-3)


def test_overrides_replace_prices_and_scopes() -> None:
    """A study changes what it names and nothing else, and the change is marked."""
    overrides = {
        "locks.audio_buffer.scope": "session",
        "costs.redis.get": "2 ms",
        "costs.redis.set.server_us": 99,
        "costs": {
            "redis": {"xadd": {"cost_ms": 3}},
            "select.filter": {"kind": "exponential", "mean_ms": 4},
        },
    }
    model, plain = CostModel.load("report", overrides), CostModel.load("report")

    assert model.scope("audio_buffer") == "session"
    assert plain.scope("audio_buffer") == "global"
    assert model.prices["redis.get"].charge.fixed_ns == 2_000_000
    assert model.redis(BY_NAME["redis.job_key"]).server.mean_ns(0) == 8_000
    assert model.redis(BY_NAME["redis.set_owner"]).server.fixed_ns == 99_000
    assert model.prices["redis.xadd"].charge.fixed_ns == 3_000_000
    assert model.prices["select.filter"].charge.mean_ns(1000) == pytest.approx(4e6, rel=1e-3)
    assert model.prices["redis.get"].priced_by == "override"
    changed = {"redis.get", "redis.set", "redis.xadd", "select.filter"}
    for key in COST_KEYS:
        if key not in changed:
            assert model.prices[key].charge.mean_ns(7) == plain.prices[key].charge.mean_ns(7)


def test_a_model_travels_to_another_process() -> None:
    """A pickled model charges the same."""
    model = CostModel.load("report")
    copy = pickle.loads(pickle.dumps(model))

    for mine, its in zip(model.charges(), copy.charges(), strict=True):
        assert mine.ns(mix(1, 2), 300) == its.ns(mix(1, 2), 300)


def test_a_file_without_a_steps_price_is_refused(tmp_path: Path) -> None:
    """A missing cost is an error that names the step, never a zero."""
    text = (Path(__file__).parents[2] / "models/costs/zero.toml").read_text(encoding="utf-8")
    path = tmp_path / "mine.toml"
    lines = [line for line in text.splitlines() if not line.startswith('"redis.script"')]
    path.write_text("\n".join(lines), encoding="utf-8")

    with pytest.raises(
        ConfigError, match=r'mine.toml.costs: "redis.script": is missing.*redis.unlock'
    ):
        CostModel.load(str(path))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('name = "x"', 'costs: "session_manager.get_session": is missing'),
        ('name = "x"\nbase = "zero"\ncolour = 1', "colour: unknown key"),
        ('name = "x"\nbase = "zeroo"', "did you mean 'zero'?"),
        ('name = "x"\nbase = "zero"\nnodes_low = 5000', "must be above `nodes_low`"),
        (
            'name = "x"\nbase = "zero"\n[locks.job]\nscope = "global"',
            "job: unknown key; did you mean 'jobs'",
        ),
        ('name = "x"\nbase = "zero"\n[locks.jobs]\nscope = "node"', "unknown scope 'node'"),
        ('name = "x"\nbase = "zero"\n[costs."job.read"]\ncost_ms = 1', "did you mean 'jobs.read'?"),
        ('name = "x"\nbase = "zero"\n[costs."jobs.read"]\ncost = 1', "has no unit"),
        ('name = "x"\nbase = "zero"\n[costs."jobs.read"]\ncost_ms = -1', "at least 0"),
        ('name = "x"\nbase = "zero"\n[costs."jobs.read"]\nserver_ms = 1', "server_ms: unknown key"),
        (
            'name = "x"\nbase = "zero"\n[costs."jobs.read"]\nnodes_range_ms = [5, 1]',
            "lower one first",
        ),
        (
            'name = "x"\nbase = "zero"\n[costs."jobs.read"]\nnodes_range_ms = [1, 5]\nper_n_ns = 1',
            "alone",
        ),
        ("name = ", "is not TOML"),
    ],
)
def test_a_wrong_file_is_named_with_what_would_be_right(
    tmp_path: Path, text: str, says: str
) -> None:
    """Every mistake in a cost model is one line that names file, key and remedy."""
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        CostModel.load(str(path))

    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["repport", "no/such/file.toml"])
def test_an_unknown_model_is_refused(name: str) -> None:
    """Neither a name nor a file: one line says so."""
    with pytest.raises(ConfigError, match=name):
        CostModel.load(name)


@pytest.mark.parametrize(
    ("key", "value"),
    [("costs.redis.gett", "1 ms"), ("locks.jobb.scope", "global"), ("colour", 1), ("costs", 3)],
)
def test_an_override_of_nothing_is_refused(key: str, value: object) -> None:
    """A misspelt override never passes silently."""
    with pytest.raises(ConfigError):
        CostModel.load("report", {key: value})


def test_a_circle_of_bases_is_refused(tmp_path: Path) -> None:
    """A model that builds on itself is an error, not an endless loop."""
    path = tmp_path / "ring.toml"
    path.write_text(f'name = "ring"\nbase = "{path.as_posix()}"', encoding="utf-8")

    with pytest.raises(ConfigError, match="circle"):
        CostModel.load(str(path))


def test_every_figure_of_the_report_is_priced_by_it() -> None:
    """What the packaged report model prices itself is a step of the catalogue's cost keys."""
    path = Path(__file__).parents[2] / "models/costs/report.toml"
    own = tomllib.loads(path.read_text(encoding="utf-8"))["costs"]

    assert set(MEAN_RANGES_MS) <= set(own)
    assert set(own) <= set(COST_KEYS)
