"""
A study: a question, and everything that its answer depends on, read from a TOML file.

docs/studies.md explains every key. A variant starts from the settings of its base and says what it
changes; the base says what it starts from in `[scenario]`. All that is wrong with a file is said in
one line that names the file, the key and what would be right, before anything is run.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, cast

from simsched.errors import ConfigError
from simsched.experiments.metrics import METRICS
from simsched.experiments.overrides import (
    Table,
    apply_settings,
    copied,
    laid_over,
    setting,
    stem,
)
from simsched.experiments.scenario_fields import SCENARIO_KEYS, read_scenario, switch, texts
from simsched.models.fields import Fields, meant
from simsched.models.tasks import Ties
from simsched.models.world import Scenario
from simsched.presets import parse_policy

ANSWERS: Final = ("compare", "report", "load", "queue", "root-cause")
"""What turns a study's runs into its page."""

TEMPLATE: Final = "new_study"
"""The packaged file that `simsched experiment new` copies."""

TOP_KEYS: Final = (
    "name", "question", "answers", "seed", "replications", "metric", "keep_steps", "precision",
    "scenario", "warmup", "quick", "answer", "variant",
)  # fmt: skip
"""Every key of a study file."""

REPLICATIONS_MAX: Final = 10_000
_VARIANT_ONLY: Final = ("name", "base", "policy", "metric", "label")
_QUICK_ONLY: Final = ("replications", "variants")


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """
    When to stop adding pairs: the half width of a saving is at most `target`, in ms.

    At most `most` replications are run of any pair.
    """

    target: float
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """
    One way of doing things, compared with its base.

    Attributes:
        policy_text: as people write it; `simsched policy show` explains it.
        load: share of the tightest resource for which the rate is set; None: the rate stands.
        metric: what the variant is judged by, a metric in ms.
        label: how a report names it; "" for its name.
        table: its `[scenario]`, complete.

    """

    name: str
    base: str | None
    policy_text: str
    scenario: Scenario
    load: float | None
    metric: str
    label: str
    table: Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """
    A study, ready to run.

    Attributes:
        warmup_ns: end of the warm-up, from the first moment at which sessions may arrive; None:
            found from the runs.
        keep_steps: write every step of replication 0 to `steps.parquet`.
        answer: the table `[answer]`, for whatever turns runs into an answer.
        where: the file, for messages.
        quick: whether `--quick` was asked for.

    """

    name: str
    question: str
    answers: str
    seed: int
    replications: int
    precision: Precision | None
    warmup_ns: int | None
    keep_steps: bool
    variants: tuple[Variant, ...]
    answer: Table
    where: str
    quick: bool
    ties: Ties
    table: Table

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        settings: Sequence[str] | Mapping[str, Any] = (),
        seed: int | None = None,
        replications: int | None = None,
        quick: bool = False,
        ties: Ties = "fifo",
    ) -> Study:
        """
        The packaged study of that name, or the file at that path.

        Args:
            name_or_path: see `built_in` for the names.
            settings: `key=value` texts, or a mapping of dotted keys, laid over the file.
            seed: instead of the file's.
            replications: instead of the file's.
            quick: apply `[quick]`.
            ties: the order of simultaneous events.

        Raises:
            ConfigError: unreadable, or a missing, unknown or impossible key.

        """
        where, folder, table = _read(str(name_or_path))
        if not isinstance(settings, Mapping):
            settings = dict(setting(text) for text in settings)
        table = apply_settings(table, settings, TOP_KEYS, SCENARIO_KEYS)
        if seed is not None:
            table["seed"] = seed
        study = _Reader(table, where, folder, quick=quick, ties=ties)
        return study.read(replications)

    def variant(self, name: str) -> Variant:
        """The variant of that name."""
        return next(variant for variant in self.variants if variant.name == name)

    def root_of(self, variant: Variant) -> Variant:
        """The variant at the bottom of a chain of bases: its rate and warm-up hold for all."""
        while variant.base is not None:
            variant = self.variant(variant.base)
        return variant

    def resolved(self) -> dict[str, Any]:
        """Everything the study says, after all overrides, as plain data."""
        return {
            "name": self.name,
            "question": self.question,
            "answers": self.answers,
            "seed": self.seed,
            "replications": self.replications,
            "quick": self.quick,
            "ties": self.ties,
            "warmup_ns": self.warmup_ns,
            "precision": (
                None
                if self.precision is None
                else {"target": self.precision.target, "most": self.precision.most}
            ),
            "answer": copied(self.answer),
            "variants": [
                {
                    "name": variant.name,
                    "base": variant.base,
                    "policy": variant.policy_text,
                    "metric": variant.metric,
                    "scenario": copied(variant.table),
                }
                for variant in self.variants
            ],
        }


def built_in() -> tuple[str, ...]:
    """The names of the packaged studies."""
    files = (resources.files("simsched") / "experiments").iterdir()
    tables = [file for file in files if file.name.endswith(".toml")]
    names = sorted(f.name for f in tables if "[[variant]]" in f.read_text(encoding="utf-8"))
    return tuple(name.removesuffix(".toml") for name in names if name != f"{TEMPLATE}.toml")


def template() -> str:
    """The text of a study file with every key explained."""
    file = resources.files("simsched") / "experiments" / f"{TEMPLATE}.toml"
    return file.read_text(encoding="utf-8")


def _read(name_or_path: str) -> tuple[str, Path | None, Table]:
    """How to name the file, where its relative paths begin, what it says."""
    folder: Path | None = None
    if name_or_path in built_in():
        where = f"{name_or_path}.toml"
        text = (resources.files("simsched") / "experiments" / where).read_text(encoding="utf-8")
    elif not name_or_path.endswith(".toml"):
        known = meant(name_or_path, built_in())
        raise ConfigError("study", name_or_path, f"unknown; {known}, or the path of a .toml")
    else:
        where, folder = name_or_path, Path(name_or_path).parent
        try:
            text = Path(name_or_path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError("study", name_or_path, f"cannot be read: {reason}") from None
    try:
        return where, folder, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(where, "", f"is not TOML: {error}") from None


class _Reader:
    """One file being read."""

    def __init__(
        self, table: Table, where: str, folder: Path | None, *, quick: bool, ties: Ties
    ) -> None:
        self._table = table
        self._where = where
        self._folder = folder
        self._quick = quick
        self._ties = ties
        self._fields = Fields(table, where)
        self._metric = "create_job_ms"

    def read(self, replications: int | None) -> Study:
        fields = self._fields
        quick, quick_fields = self._read_quick()
        name = fields.text("name", Path(self._where).stem)
        self._metric = self._ms_metric(fields, self._metric)
        usual = fields.integer("replications", 10, least=1)
        if self._quick:
            usual = quick_fields.integer("replications", usual, least=1)
        if replications is not None:
            usual = replications
        if not 1 <= usual <= REPLICATIONS_MAX:
            raise fields.fail("replications", f"must be 1 to {REPLICATIONS_MAX}, not {usual}")
        study = Study(
            name=name,
            question=fields.text("question", ""),
            answers=fields.choice("answers", ANSWERS, "compare"),
            seed=fields.integer("seed", 1),
            replications=usual,
            precision=self._precision(usual),
            warmup_ns=self._warmup(),
            keep_steps=switch(fields, "keep_steps", True),
            variants=self._variants(quick, quick_fields),
            answer=self._plain("answer"),
            where=self._where,
            quick=self._quick,
            ties=self._ties,
            table=self._table,
        )
        fields.close()
        return study

    def _read_quick(self) -> tuple[Table, Fields]:
        """The overrides of `[scenario]` under `--quick`, and the table's reader."""
        inner = self._fields.table("quick")
        for key in inner.names():
            if key not in _QUICK_ONLY and stem(key) not in SCENARIO_KEYS:
                known = (*_QUICK_ONLY, *SCENARIO_KEYS)
                raise inner.fail(key, f"unknown key; {meant(key, known)}")
        overrides = {key: inner.raw(key) for key in inner.names() if key not in _QUICK_ONLY}
        return (overrides if self._quick else {}), inner

    def _ms_metric(self, fields: Fields, default: str) -> str:
        known = [name for name, metric in METRICS.items() if metric.unit == "ms"]
        return fields.choice("metric", known, default)

    def _precision(self, fixed: int) -> Precision | None:
        if not self._fields.has("precision"):
            return None
        inner = self._fields.table("precision")
        precision = Precision(
            target=inner.number("target_ms", least=1e-6),
            most=inner.integer("most", 10 * fixed, least=fixed),
        )
        inner.close()
        if precision.most > REPLICATIONS_MAX:
            raise inner.fail("most", f"must be at most {REPLICATIONS_MAX}")
        return None if self._quick or fixed == 1 else precision

    def _warmup(self) -> int | None:
        if not self._fields.has("warmup"):
            return None
        inner = self._fields.table("warmup")
        end = inner.duration("end")
        inner.close()
        return end

    def _variants(self, quick: Table, quick_fields: Fields) -> tuple[Variant, ...]:
        entries = self._entries()
        if quick:
            self._check_whole(entries)
        start = laid_over(self._plain("scenario"), quick)
        wanted = self._wanted(quick_fields, entries)
        made: dict[str, Variant] = {}
        for name in _bases_first(entries, self._where):
            if name in wanted:
                made[name] = self._variant(name, entries[name], start, made)
        return tuple(made[name] for name in entries if name in made)

    def _check_whole(self, entries: Mapping[str, Table]) -> None:
        """What `--quick` overrides has to be right as well."""
        whole: dict[str, Variant] = {}
        for name in _bases_first(entries, self._where):
            whole[name] = self._variant(name, entries[name], self._plain("scenario"), whole)

    def _plain(self, name: str) -> Table:
        table = self._fields.raw(name, {})
        if not isinstance(table, Mapping):
            raise self._fields.fail(name, f"must be a table of keys, not {table!r}")
        return dict(table)

    def _entries(self) -> dict[str, Table]:
        listed = self._fields.raw("variant", [])
        if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
            raise self._fields.fail("variant", "is missing: at least one [[variant]] with a name")
        entries: dict[str, Table] = {}
        for place, item in enumerate(listed):
            fields = Fields(item, f"{self._where}: variant {place + 1}")
            name = fields.text("name")
            if not name or name in entries:
                raise fields.fail("name", f"names differ and are not empty: {name!r}")
            for key in fields.names():
                if key not in _VARIANT_ONLY and stem(key) not in SCENARIO_KEYS:
                    known = (*_VARIANT_ONLY, *SCENARIO_KEYS)
                    raise ConfigError(
                        f"{self._where}: variant {name}", key, f"unknown key; {meant(key, known)}"
                    )
            entries[name] = dict(cast("Mapping[str, Any]", item))
        return entries

    def _wanted(self, fields: Fields, entries: Mapping[str, Table]) -> Iterable[str]:
        """Under `--quick` the variants that it names, with their bases."""
        names = texts(fields, "variants", fields.raw("variants", []))
        for name in names:
            if name not in entries:
                raise fields.fail("variants", f"no variant {name!r}; {meant(name, entries)}")
        if not self._quick or not names:
            return tuple(entries)
        wanted = dict.fromkeys(names)
        for name in names:
            base = entries[name].get("base")
            while isinstance(base, str) and base in entries and base not in wanted:
                wanted[base] = None
                base = entries[base].get("base")
        return tuple(wanted)

    def _variant(
        self, name: str, entry: Table, start: Table, made: Mapping[str, Variant]
    ) -> Variant:
        where = f"{self._where}: variant {name}"
        fields = Fields({key: entry[key] for key in _VARIANT_ONLY if key in entry}, where)
        base = made[entry["base"]] if "base" in entry else None
        policy_text = fields.text("policy", None if base is None else base.policy_text)
        own = {key: value for key, value in entry.items() if key not in _VARIANT_ONLY}
        table = laid_over(start if base is None else base.table, own)
        policy = parse_policy(policy_text, f"{where}: policy")
        place = where if own else f"{self._where}: scenario"
        read = read_scenario(table, place, policy=policy, folder=self._folder, ties=self._ties)
        return Variant(
            name=name,
            base=None if base is None else base.name,
            policy_text=policy_text,
            scenario=read.scenario,
            load=read.load,
            metric=self._ms_metric(fields, self._metric if base is None else base.metric),
            label=fields.text("label", ""),
            table=table,
        )


def _bases_first(entries: Mapping[str, Table], where: str) -> list[str]:
    """The variants' names, each after its base; in the order of the file otherwise."""
    order: dict[str, None] = {}

    def add(name: str, above: tuple[str, ...]) -> None:
        base = entries[name].get("base")
        if base is not None:
            place = f"{where}: variant {name}"
            if not isinstance(base, str) or base not in entries:
                raise ConfigError(
                    place, "base", f"no variant {base!r}; {meant(str(base), entries)}"
                )
            if base == name or base in above:
                raise ConfigError(place, "base", f"{base!r} comes back to itself")
            add(base, (*above, name))
        order.setdefault(name)

    for name in entries:
        add(name, ())
    return list(order)
