"""The reference's configuration file: every setting is taken over or said to have no meaning."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from simsched.errors import ConfigError
from simsched.live.reference_config import Imported, import_reference
from simsched.live.reference_table import RULES, Rule
from simsched.live.settings_catalogue import CATALOGUE
from simsched.live.settings_files import load, read_table, settings_of
from simsched.policy import FIELDS

COMPLETE = """
[server]
port = 5011
host = "0.0.0.0"

[model_hub]
base_url = "http://hub.example:5000"
storage_path = "./models"

[scheduler]
max_concurrent_jobs_per_node = 4
job_timeout_seconds = 60
heartbeat_interval_seconds = 10

[scheduler.job_timeout]
pending_timeout_seconds = 12
failover_max_attempts = 5
scan_interval_ms = 500
send_cancel = true

[scheduler.load_balancer]
strategy = "least_connections"
resource_threshold = 85.0

[scheduler.node_health]
heartbeat_interval_seconds = 15
heartbeat_timeout_seconds = 40
health_check_count = 2
warmup_timeout_seconds = 50
status_scan_interval_seconds = 20

[scheduler.node_health.failure_threshold]
window_size = 5
failure_count = 3
consecutive_failure_count = 4

[scheduler.model_not_available]
unavailable_ttl_seconds = 60
debounce_window_seconds = 5
node_ratelimit_window_seconds = 10
node_ratelimit_max = 30

[scheduler.task_binding]
lease_seconds = 90
reserved_ttl_seconds = 120
spread_enabled = false
spread_window_seconds = 30

[scheduler.web_task_segmentation]
pause_ms = 2500
max_duration_ms = 20000

[scheduler.web_task_segmentation.edge_stabilization]
hangover_auto_ms = 151
hangover_manual_ms = 201
padding_auto_ms = 221
padding_manual_ms = 281
short_merge_threshold_ms = 400

[scheduler.observability]
lock_wait_warn_ms = 10
path_warn_ms = 50

[scheduler.core_services]
asr_service_id = "a"
nmt_service_id = "b"
tts_service_id = "c"

[scheduler.asr_rerun]
max_rerun_count = 2
rerun_timeout_ms = 5000
conference_mode_strict = true

[scheduler.phase2]
enabled = true
instance_id = "sched-1"
owner_ttl_seconds = 45
stream_block_ms = 900
stream_count = 64
stream_group = "scheduler"
stream_maxlen = 9000
dlq_enabled = true
dlq_maxlen = 10000
dlq_max_deliveries = 10
dlq_min_idle_ms = 60000
dlq_scan_interval_ms = 5000
dlq_scan_count = 100

[scheduler.phase2.node_snapshot]
enabled = true
presence_ttl_seconds = 45
refresh_interval_ms = 1500
remove_stale_after_seconds = 600

[scheduler.phase2.schema_compat]
enabled = false
stats_snapshot_enabled = false
stats_snapshot_ttl_seconds = 60
stats_snapshot_interval_ms = 5000
node_caps_enabled = false
node_caps_ttl_seconds = 0
session_bind_enabled = false
session_bind_ttl_seconds = 3600

[scheduler.phase2.redis]
mode = "single"
url = "redis://u:s3cret@store.example:6379"
cluster_urls = []
key_prefix = "cellar"

[scheduler.phase3]
enabled = true
mode = "two_level"
pool_count = 8
hash_seed = 7
fallback_scan_all_pools = false
pool_match_scope = "all_required"
pool_match_mode = "exact"
strict_pool_eligibility = true
auto_generate_language_pools = false
random_sample_size = 10
enable_session_affinity = true

[scheduler.phase3.auto_pool_config]
min_nodes_per_pool = 2
max_pools = 40
pool_naming = "pair"
require_semantic = true
enable_mixed_pools = true

[[scheduler.phase3.pools]]
pool_id = 1
name = "speech"
required_services = ["asr", "tts"]

[scheduler.phase3.pools.language_requirements]
asr_languages = ["zh"]

[[scheduler.phase3.pools]]
pool_id = "2"

[[scheduler.phase3.tenant_overrides]]
tenant_id = "acme corp"
pool_id = 1
"""

WRONG: dict[str, tuple[str, ...]] = {
    "count": ("'four'", "1.5", "true"),
    "seconds": ("'ten'", "true", "nan"),
    "number": ("'ten'", "true", "inf"),
    "switch": ("1", "'yes'"),
    "text": ("5", "true"),
    "texts": ("'a'", "[1]"),
    "tables": ("'a'", "[1]"),
}


def imported(tmp_path: Path, text: str) -> Imported:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return import_reference(path)


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        imported(tmp_path, text)
    line = str(caught.value)
    assert line.startswith(str(tmp_path / "config.toml"))
    assert "\n" not in line
    return line


def leaves(table: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name, value in table.items():
        if isinstance(value, dict):
            found += leaves(value, f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found


def test_the_whole_file_is_accounted_for(tmp_path: Path) -> None:
    """Every key has a line of its own that says what became of it, and every rule is tried."""
    keys = leaves(tomllib.loads(COMPLETE))
    assert set(keys) == set(RULES)
    notes = imported(tmp_path, COMPLETE).notes
    for key in keys:
        assert [line for line in notes if line.startswith((f"{key} ", f"{key}:"))], key
    assert not [line for line in notes if "not a setting" in line]


def test_what_has_a_meaning_is_taken_over(tmp_path: Path) -> None:
    """Value for value, in our units and under our names."""
    found = imported(tmp_path, COMPLETE)
    settings = settings_of(found.values)
    policy = settings.core_policy()
    assert (policy.job_timeout_ms, policy.pending_ms) == (60_000, 12_000)
    assert (policy.failover_max, policy.lease_ms) == (5, 120_000)
    assert (settings.server.host, settings.server.port) == ("0.0.0.0", 5011)
    assert settings.server.instance_id == "sched-1"
    assert settings.auth.allow_anonymous
    assert (settings.store.cell, settings.store.inbox_length_max) == ("cellar", 9_000)
    assert settings.store.redis_url.endswith("@store.example:6379")
    health, timeouts = settings.health, settings.timeouts
    assert (health.silence_s, health.warmup_s, health.node_scan_s) == (40, 50, 20)
    assert (health.healthy_needed, health.failures_max) == (2, 4)
    assert (timeouts.heartbeat_s, timeouts.scan_ms, timeouts.remote_refresh_ms) == (10, 500, 1_500)
    cuts = settings.segmentation
    assert (cuts.pause_ms, cuts.max_duration_ms) == (2_500, 20_000)
    assert (cuts.hangover_auto_ms, cuts.hangover_manual_ms) == (151, 201)
    assert (cuts.padding_auto_ms, cuts.padding_manual_ms) == (221, 281)
    pools = settings.pool_config()
    assert (pools.pool_count, pools.hash_seed, pools.random_sample_size) == (8, 7, 10)
    assert (pools.min_nodes_per_pool, pools.max_pools) == (2, 40)
    assert [pool.pool_id for pool in pools.pools] == ["1", "2"]
    assert pools.pools[0].required_services == ("asr", "tts")
    assert pools.tenant_overrides == (("acme corp", "1"),)
    assert not pools.fallback_scan_all_pools


def test_the_file_that_is_written_reads_back(tmp_path: Path) -> None:
    """What `config import` writes is a configuration like any other."""
    found = imported(tmp_path, COMPLETE)
    assert settings_of(read_table(tomllib.loads(found.text), "x")) == settings_of(found.values)
    path = tmp_path / "simsched.toml"
    path.write_text(found.text, encoding="utf-8")
    assert load(path, {}).server.port == 5011


def test_notes_keep_secrets(tmp_path: Path) -> None:
    """The store's password goes into the file and nowhere else."""
    assert "s3cret" not in "\n".join(imported(tmp_path, COMPLETE).notes)
    off = COMPLETE.replace(
        "[scheduler.phase2]\nenabled = true", "[scheduler.phase2]\nenabled = false"
    )
    assert "s3cret" not in "\n".join(imported(tmp_path, off).notes)


@pytest.mark.parametrize("key", sorted(RULES))
def test_wrong_types_are_named(key: str, tmp_path: Path) -> None:
    """A value that the reference would not read is refused, with its key and what it takes."""
    for value in WRONG[RULES[key].kind]:
        assert f": {key}" in refused(tmp_path, f"{key} = {value}\n")


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_rules_lead_somewhere_or_say_why_not(rule: Rule) -> None:
    """A target is a setting or a field of the policy that exists; else there is a reason."""
    if rule.to.startswith("policy:"):
        assert rule.to.removeprefix("policy:") in FIELDS
    elif rule.to:
        assert rule.to in CATALOGUE
    else:
        assert rule.because


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[server]\nport = 70000", "server.port: a whole number from 0 to 65535"),
        ("[scheduler.phase3]\nmode = 'three'", "scheduler.phase3.mode: unknown value"),
        ("[scheduler]\nheartbeat_interval_seconds = 60", "heartbeat_interval_seconds: a number"),
        ("[scheduler]\njob_timeout_seconds = -1", "scheduler.job_timeout_seconds: a whole number"),
        ("[[scheduler.phase3.pools]]\nname = 'x'", "scheduler.phase3.pools[0].pool_id: is missing"),
        (
            "[[scheduler.phase3.pools]]\npool_id = 1\n[[scheduler.phase3.pools]]\npool_id = 1",
            "scheduler.phase3.pools: ids differ",
        ),
        ("[[scheduler.phase3.tenant_overrides]]\npool_id = 1", "[0].tenant_id: is missing"),
        ("[scheduler.phase2.redis]\nurl = 'http://h'", "scheduler.phase2.redis.url: an address"),
        ("[scheduler", "not TOML"),
    ],
)
def test_what_does_not_fit_is_laid_at_its_key(text: str, line: str, tmp_path: Path) -> None:
    """The line names the reference's file and the reference's key."""
    assert line in refused(tmp_path, text)


def test_unknown_keys_are_said_to_be_unknown(tmp_path: Path) -> None:
    """The reference ignores them; here they are named, with what was probably meant."""
    notes = imported(tmp_path, "[scheduler]\njob_timeout_secnds = 5\nother = 1\n").notes
    assert "did you mean scheduler.job_timeout_seconds?" in notes[0]
    assert notes[1].startswith("scheduler.other: not a setting of the reference")


def test_later_versions_of_the_reference_are_understood(tmp_path: Path) -> None:
    """Its Redis section has two names, and its pools stand in two places."""
    found = imported(
        tmp_path,
        "[scheduler.redis_runtime]\nenabled = true\n[scheduler.redis_runtime.redis]\n"
        "url = 'redis://h'\n[phase3]\nenabled = true\n[[phase3.pools]]\npool_id = 3\n",
    )
    assert found.values["store.redis_url"] == "redis://h"
    assert found.values["pools.enabled"] is True
    assert found.values["pools.pools"][0]["pool_id"] == "3"


def test_a_single_instance_needs_no_redis(tmp_path: Path) -> None:
    """With phase 2 off, the address is not taken over, and that is said."""
    found = imported(
        tmp_path,
        "[scheduler.phase2]\nenabled = false\n[scheduler.phase2.redis]\nurl = 'redis://h'\n",
    )
    assert "store.redis_url" not in found.values
    assert any("redis.url: no meaning here" in line for line in found.notes)


def test_what_differs_on_purpose_is_said(tmp_path: Path) -> None:
    """Addresses, tokens, a prefix that no key may have, and the policy."""
    notes = "\n".join(imported(tmp_path, "").notes)
    assert "server.host: not given" in notes
    assert "'shipped' decides as its code does" in notes
    found = imported(tmp_path, "[scheduler.phase2.redis]\nkey_prefix = 'a:{b}'\n")
    assert "store.cell" not in found.values
    assert "key_prefix = 'a:{b}': not taken over" in "\n".join(found.notes)
    auto = imported(tmp_path, "[scheduler.phase2]\ninstance_id = 'auto'\n")
    assert "server.instance_id" not in auto.values
