"""A study file says all that its answer depends on, or is refused in one line that helps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsched.errors import ConfigError
from simsched.experiments.overrides import laid_over, setting
from simsched.experiments.study import Study, built_in, template
from simsched.units import SECOND

START = """
seed = 3
replications = 4
[scenario]
costs = "zero"
nodes = 7
horizon_s = 30
workload.arrivals = { kind = "poisson", rate_per_s = 2 }
[quick]
replications = 2
horizon_ms = 5000
variants = ["c"]
[[variant]]
name = "a"
policy = "published"
[[variant]]
name = "c"
base = "b"
nodes = 9
[[variant]]
name = "b"
base = "a"
policy = "published+1"
workload.manual_cut_share = 0.5
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(START)
    return path


def test_a_variant_starts_from_its_base(file: Path) -> None:
    """Settings and policy come from the base, wherever in the file it stands."""
    study = Study.load(file)

    a, c, b = study.variants
    assert [v.name for v in study.variants] == ["a", "c", "b"]
    assert (a.scenario.nodes, b.scenario.nodes, c.scenario.nodes) == (7, 7, 9)
    assert c.policy_text == b.policy_text == "published+1"
    assert c.scenario.workload.manual_cut_share == 0.5
    assert a.scenario.workload.manual_cut_share == 0.3
    assert study.root_of(c) is a
    assert (study.name, study.seed, study.replications) == ("mine", 3, 4)


def test_quick_overrides_and_keeps_the_bases(file: Path) -> None:
    """`[quick]` counts only when asked for; a variant that it names brings its bases along."""
    study = Study.load(file, quick=True)

    assert study.replications == 2
    assert [v.name for v in study.variants] == ["a", "c", "b"]
    assert study.variants[0].scenario.horizon_ns == 5 * SECOND
    assert Study.load(file).variants[0].scenario.horizon_ns == 30 * SECOND
    assert Study.load(file, quick=True, replications=3).replications == 3


def test_settings_reach_everything(file: Path) -> None:
    """`--set` overrides the study, the scenario (its name may be left out) and one variant."""
    study = Study.load(
        file,
        settings=[
            "seed=9", "slots=2", "scenario.horizon_min=1", "variant.b.nodes=11",
            "workload.arrivals.rate_per_s=5", "costs=report",
        ],
    )  # fmt: skip

    a, c, b = study.variants
    assert (study.seed, a.scenario.slots, a.scenario.horizon_ns) == (9, 2, 60 * SECOND)
    assert (a.scenario.nodes, b.scenario.nodes, c.scenario.nodes) == (7, 11, 9)
    assert a.scenario.workload.arrivals.rate_per_s == 5
    assert a.scenario.costs.name == "report"


FAULTS = [
    ("sede=3", "--set", "sede", "did you mean 'seed'"),
    ("nodes=-1", "mine.toml: scenario", "nodes", "at least 1"),
    ("nodes='many'", "mine.toml: scenario", "nodes", "whole number"),
    ("scenario.nodse=3", "mine.toml", "nodse", "did you mean 'nodes'"),
    ("workload.arrivals.rate_per_s=-2", "arrivals", "rate", "above 0|at least 0|finite rate"),
    ("workload.arival={}", "workload", "arival", "did you mean 'arrivals'"),
    ("horizon='5 parsec'", "scenario", "horizon", "unknown unit"),
    ("costs=reprot", "cost model", "reprot", "did you mean 'report'"),
    ("variant.a.policy=publishd", "variant a: policy", "publishd", "did you mean published"),
    ("variant.a.policy='safe,slots=none at all'", "variant a", "slots", "one of none"),
    ("variant.z.nodes=1", "--set", "variant.z.nodes", "unknown variant"),
    ("variant.b.base=q", "variant b", "base", "no variant 'q'"),
    ("variant.a.base=c", "variant", "base", "comes back to itself"),
    ("metric=create_jbo_ms", "mine.toml", "metric", "did you mean 'create_job_ms'"),
    ("metric=jobs_per_s", "mine.toml", "metric", "unknown metric"),
    ("answers=reports", "mine.toml", "answers", "did you mean 'report'"),
    ("load=1000", "scenario", "load", "at most 100"),
    ("quick.variants=['x']", "quick", "variants", "no variant 'x'"),
    ("quick.nods=1", "quick", "nods", "did you mean 'nodes'"),
    ("replications=0", "mine.toml", "replications", "at least 1"),
    ("shared=1", "scenario", "shared", "true or false"),
    ("precision.target_ms=0", "precision", "target_ms", "at least"),
    ("warmup.end=3", "warmup", "end", "has no unit"),
    ("pools.pool_count=0", "phase3", "pool_count", "1 or more"),
    ("segmentation.pause=3", "segmentation", "pause", "did you mean 'pause_ms'"),
    ("workload.arrivals={kind='closed', population=3, think_ms=5}", "scenario", "load", "closed"),
    ("no equals sign", "--set", "no equals sign", "key=value"),
]


@pytest.mark.parametrize(("text", "where", "key", "want"), FAULTS)
def test_bad_input_is_one_line_that_helps(
    file: Path, text: str, where: str, key: str, want: str
) -> None:
    """The line names the file or option, the key, and what would be right."""
    settings = [text, "load=0.5"] if "closed" in text else [text]

    with pytest.raises(ConfigError) as caught:
        Study.load(file, settings=settings, quick=text.startswith("quick"))

    line = str(caught.value)
    assert "\n" not in line
    assert where in line
    assert key in line
    assert any(part in line for part in want.split("|"))


@pytest.mark.parametrize(
    ("content", "want"),
    [
        ("x = ", "is not TOML"),
        ("seed = 1", "at least one [[variant]]"),
        ("[[variant]]\nname = 'a'\npolicy = 'safe'\n[scenario]\nload = 0.5", "horizon"),
        ("[[variant]]\nname = 'a'\n[scenario]\nload = 0.5\nhorizon_s = 3", "policy: is missing"),
        ("[[variant]]\nname = 'a'\n[[variant]]\nname = 'a'", "names differ"),
        ("[[variant]]\nname = 'a'\nnods = 3", "did you mean 'nodes'"),
        ("scenario = 3\n[[variant]]\nname = 'a'\npolicy = 'safe'", "must be a table"),
        ("quick = 3\n[[variant]]\nname = 'a'\npolicy = 'safe'", "must be a table"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, content: str, want: str) -> None:
    """What is no study says so, and names the file."""
    path = tmp_path / "broken.toml"
    path.write_text(content)

    with pytest.raises(ConfigError) as caught:
        Study.load(path)

    assert "broken.toml" in str(caught.value)
    assert want in str(caught.value)


def test_unknown_and_unreadable_studies_are_named(tmp_path: Path) -> None:
    """A name that no packaged study has, and a file that is not there."""
    with pytest.raises(ConfigError, match="or the path of a"):
        Study.load("nothing-of-the-kind")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Study.load(tmp_path / "gone.toml")


def test_the_template_is_a_study(tmp_path: Path) -> None:
    """What `new` writes can be run as it is, and says everything it does in plain data."""
    path = tmp_path / "new.toml"
    path.write_text(template())

    study = Study.load(path)

    assert len(study.variants) == 3
    json.dumps(study.resolved())


def test_packaged_studies_are_valid() -> None:
    """Every study that comes along can be loaded, whole and quick; tables of figures are none."""
    assert "figures" not in built_in()
    for name in built_in():
        assert Study.load(name).name == name
        assert Study.load(name, quick=True).variants


def test_a_key_replaces_itself_in_another_unit() -> None:
    """Tables merge key by key; a unit is no part of a name; a table with a kind stands alone."""
    below = {"a_ms": 5, "b": {"kind": "x", "mean_ms": 1}, "c": {"d": 1, "e": 2}}

    assert laid_over(below, {"a_s": 1}) == {**{k: below[k] for k in "bc"}, "a_s": 1}
    assert laid_over(below, {"b": {"kind": "y"}})["b"] == {"kind": "y"}
    assert laid_over(below, {"b": {"mean_s": 2}})["b"] == {"kind": "x", "mean_s": 2}
    assert laid_over(below, {"c": {"e": 3}})["c"] == {"d": 1, "e": 3}


TABLES = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abcde"), inner, max_size=4),
    max_leaves=8,
).filter(lambda value: isinstance(value, dict))


@given(below=TABLES, above=TABLES)
def test_laying_over_says_what_is_above(below: dict[str, object], above: dict[str, object]) -> None:
    """Laying a table over another twice changes nothing more, and neither is touched."""
    copies = json.dumps([below, above])
    merged = laid_over(below, above)

    assert laid_over(merged, above) == merged
    assert laid_over({}, above) == above
    assert json.dumps([below, above]) == copies


@pytest.mark.parametrize(
    ("text", "value"),
    [("a=1", 1), ("a = 0.5", 0.5), ("a=true", True), ("a=x y", "x y"), ('a="1"', "1"),
     ("a=[1, 2]", [1, 2]), ("a={b = 1}", {"b": 1}), ("a=", "")],
)  # fmt: skip
def test_values_are_toml_or_else_text(text: str, value: object) -> None:
    """`--set` takes numbers, switches, lists and tables as TOML says them, all else as text."""
    assert setting(text) == ("a", value)


@pytest.mark.parametrize("place", ["horizon_s=-1", "nodes=0"])
def test_quick_hides_no_mistake(file: Path, place: str) -> None:
    """What `[quick]` replaces has to be right as well."""
    key, _, value = place.partition("=")
    with pytest.raises(ConfigError, match=key):
        Study.load(
            file, quick=True, settings={key: int(value), f"quick.{key}": 5}
        )  # fmt: skip


def test_an_unknown_key_is_answered_with_each_key_once(file: Path) -> None:
    """A time is one key, whatever its units."""
    with pytest.raises(ConfigError) as caught:
        Study.load(file, settings={"scenario.horizn_s": 5})

    known = caught.value.want.partition("known: ")[2].rstrip(")").split(", ")
    assert len(known) == len(dict.fromkeys(known)) > 10
    assert {"horizon", "drain", "heartbeat"} <= set(known)
    assert not [key for key in known if key.endswith(("_ms", "_s", "_ns", "_min"))]
