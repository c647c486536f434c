"""Modules: expansion follows the tables; languages: rules become pairs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsched.languages import AUTO, LanguageCapabilities, NmtCapability
from simsched.modules import FEATURE_MODULES, MODULES, ExpansionError, Module, expand, job_needs

ALL_ON = {"use_asr": True, "use_nmt": True, "use_tts": True}


@given(st.lists(st.sampled_from(sorted(MODULES))))
def test_a_module_comes_once_and_after_what_it_needs(names: list[str]) -> None:
    """Expansion is complete, without repeats, dependencies first."""
    order = expand(names)
    assert len(order) == len(set(order))
    assert set(names) <= set(order)
    for name in order:
        assert all(order.index(need) < order.index(name) for need in MODULES[name].needs)


def test_cycles_and_missing_modules_are_named() -> None:
    """A broken table is an error that shows the circle."""
    table = {"a": Module(needs=("b",)), "b": Module(needs=("a",))}
    with pytest.raises(ExpansionError, match="a -> b -> a"):
        expand(("a",), table)
    with pytest.raises(ExpansionError, match="no such module: c"):
        expand(("c",), table)


@pytest.mark.parametrize("feature", sorted(FEATURE_MODULES))
def test_tone_is_needed_exactly_by_models_of_voices(feature: str) -> None:
    """Only speaker identification and what builds on it ask for the type tone."""
    types = job_needs(ALL_ON, (feature,), two_level=False).types
    assert ("tone" in types) == (feature in ("speaker_identification", "voice_style_detection"))


def test_semantic_follows_the_levels_and_not_the_flag() -> None:
    """The type semantic is added for every job under two levels and removed otherwise."""
    flags = {**ALL_ON, "use_semantic": True}
    assert job_needs(flags, two_level=False).types == ("asr", "nmt", "tts")
    assert job_needs(ALL_ON, two_level=True).types == ("asr", "nmt", "tts", "semantic")


@pytest.mark.parametrize(
    ("rule", "pairs"),
    [
        ("any_to_any", {("zh", "en"), ("en", "zh"), ("zh", "ja"), ("ja", "en"), ("en", "ja")}),
        ("any_to_en", {("zh", "en"), ("ja", "en")}),
        ("en_to_any", {("en", "zh"), ("en", "ja")}),
        ("specific_pairs", {("zh", "en")}),
    ],
)
def test_nmt_rules_name_their_pairs_less_the_blocked(
    rule: str, pairs: set[tuple[str, str]]
) -> None:
    """Each rule gives exactly its pairs; a blocked pair is gone under every rule."""
    model = NmtCapability(
        rule=rule,
        languages=("zh", "en", "ja"),
        supported_pairs=(("zh", "en"), ("ja", "zh")),
        blocked_pairs=(("ja", "zh"),),
    )
    assert set(model.pairs()) == pairs


def test_unknown_rule_is_refused() -> None:
    """A rule that nobody knows is an error."""
    with pytest.raises(ValueError, match="any_to_any"):
        NmtCapability(rule="all")


def test_served_pairs_are_heard_and_translated_and_reach_auto() -> None:
    """A pair is served if recognised and translated; auto stands for any of them."""
    node = LanguageCapabilities(asr=("zh",), semantic=("zh", "en", "ja"))
    assert node.served == ((AUTO, "en"), (AUTO, "ja"), ("zh", "en"), ("zh", "ja"))
    assert node.translates("en", "ja")
    assert node.translates(AUTO, "ja")
    assert not node.translates(AUTO, "ja", auto=False)
    assert not node.translates(AUTO, "zh")
    own = LanguageCapabilities(asr=("zh",), semantic=("zh", "en"), declared_pairs=(("zh", "fr"),))
    assert own.served == ((AUTO, "fr"), ("zh", "fr"))
