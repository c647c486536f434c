"""What becomes of a node's own words: languages, services, slots, and who is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from simsched import wire
from simsched.live import refusals
from simsched.live.registration import SLOTS_MAX, record_of, refusal_of
from simsched.messages import NodeRegister
from simsched.nodes import SLOTS_DEFAULT, NodeRecord
from tests.live.live_world import REGISTER


def said(**changed: Any) -> NodeRegister:
    message = wire.decode_node(json.dumps({**REGISTER, **changed}))
    assert isinstance(message, NodeRegister)
    return message


def record(**changed: Any) -> NodeRecord:
    return record_of(said(**changed), "n", 5)


@pytest.mark.parametrize(
    ("changed", "refusal"),
    [
        ({}, None),
        ({"capability_schema_version": None}, None),
        ({"capability_schema_version": ""}, None),
        ({"capability_schema_version": "2.1"}, refusals.BAD_SCHEMA),
        ({"hardware": {"cpu_cores": 1, "memory_gb": 1}}, refusals.NO_GPU),
        ({"hardware": {"cpu_cores": 1, "memory_gb": 1, "gpus": []}}, refusals.NO_GPU),
    ],
)
def test_only_a_wrong_schema_and_a_missing_gpu_are_refused(changed: Any, refusal: Any) -> None:
    """A node that names no schema is older than it, and let in."""
    assert refusal_of(said(**changed)) is refusal
    lenient = refusal_of(said(**changed), needs_gpu=False)
    assert lenient is (None if refusal is refusals.NO_GPU else refusal)


@pytest.mark.parametrize(
    ("languages", "models", "served"),
    [
        ({"asr_languages": ["zh"], "tts_languages": ["en", "zh"]}, [], ("zh", "en")),
        ({"asr_languages": ["zh"], "semantic_languages": ["zh", "en"]}, [], ("zh", "en")),
        (None, [{"model_id": "m", "kind": "nmt", "src_lang": "zh", "tgt_lang": "en"}], ("zh", "en")),  # noqa: E501
        (
            {
                "asr_languages": ["zh"],
                "nmt_capabilities": [
                    {"model_id": "m", "languages": ["zh", "en", "de"], "rule": "any_to_any",
                     "blocked_pairs": [{"src": "zh", "tgt": "de"}]}
                ],
            },
            [],
            ("zh", "en"),
        ),
    ],
)  # fmt: skip
def test_a_nodes_pairs_follow_from_what_it_says(languages: Any, models: Any, served: Any) -> None:
    """Its own pairs, its models' rules, its semantic languages, else its models or its voices."""
    node = record(language_capabilities=languages, installed_models=models)
    assert [pair for pair in node.languages.served if pair[0] != "auto"] == [served]


def test_services_slots_and_features_have_defaults() -> None:
    """Four slots as in the reference; services from the types; features that are switched on."""
    plain = record(installed_services=None, features_supported={"emotion_detection": True})
    assert plain.slots == SLOTS_DEFAULT
    assert [service.type for service in plain.services] == ["asr", "nmt", "tts"]
    assert plain.features == ("emotion_detection",)
    assert not plain.takes_retries
    ours = record(slots=10**9, advanced_features=["takes_retries"])
    assert ours.slots == SLOTS_MAX
    assert ours.takes_retries
