"""
Everything that can be set about a running server, with its default, bounds and one line of help.

Each section of the configuration file is one frozen struct here; the reference in
docs/configuration.md is generated from these declarations. Names end in their unit (`_s`, `_ms`,
`_bytes`) wherever a quantity has one. A value outside its bounds, a setting that contradicts
another one and a canary that may not differ are refused with one line (`ConfigError`).

Where the values come from (file, environment, flags) is `settings_files`' business; what a policy
means is `simsched.policy`'s. Nothing here opens a file or a socket.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from simsched.canary import Canary, canary_of
from simsched.errors import ConfigError
from simsched.letters import NEWEST, OLDEST
from simsched.live.settings_rules import faults
from simsched.nodes import HealthLimits
from simsched.policy import Policy
from simsched.pools import Pool, PoolConfig
from simsched.presets import parse_policy
from simsched.segmentation import SegmentationSettings
from simsched.state import CoreSettings
from simsched.units import MS, SECOND

Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
"""A whole number of at least 1."""

CountOrNone = Annotated[int, Meta(ge=0, le=1_000_000_000)]
"""A whole number; 0 switches the thing off."""

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
"""A time of at most a day."""

SecondsOrNone = Annotated[float, Meta(ge=0, le=86_400)]
"""A time of at most a day; 0 switches the thing off or means at once."""

Port = Annotated[int, Meta(ge=0, le=65_535)]
"""A TCP port."""

Share = Annotated[float, Meta(ge=0, le=1, extra={"share": True})]
"""A share of a whole; the file and the flags also take a percentage, such as "20%"."""

FilePath = Annotated[str, Meta(extra={"path": True})]
"""A file or folder; in a configuration file it is relative to that file's folder."""


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every section is: frozen, by name only, without unknown keys."""


class ServerSettings(Section, frozen=True, kw_only=True):
    """Where the server listens and how it keeps and leaves its connections."""

    host: Annotated[str, Meta(description="address to listen on")] = "127.0.0.1"
    port: Annotated[
        Port, Meta(description="port of everything: /ws/session, /ws/node, HTTP; 0: any free one")
    ] = 5010
    origins: Annotated[
        tuple[str, ...],
        Meta(
            description="origins whose web pages may connect, such as https://app.example; "
            "empty: any page of this host, and programs that send no origin; '*': any"
        ),
    ] = ()
    instance_id: Annotated[
        str,
        Meta(
            max_length=100,
            pattern=r"^[A-Za-z0-9_.-]*$",
            description="name of this instance in the store; '': host, process and chance",
        ),
    ] = ""
    drain_s: Annotated[
        SecondsOrNone,
        Meta(description="how long open work may take to finish once the server is told to leave"),
    ] = 30.0
    ping_s: Annotated[
        Seconds, Meta(description="a node's socket is pinged this often, so that a hang is seen")
    ] = 1.0
    ping_timeout_s: Annotated[
        Seconds, Meta(description="a node's socket without an answer for this long is closed")
    ] = 3.0
    client_ping_s: Annotated[
        Seconds, Meta(description="a client's socket is pinged this often")
    ] = 20.0
    client_ping_timeout_s: Annotated[
        Seconds, Meta(description="a client's socket without an answer for this long is closed")
    ] = 20.0
    first_frame_s: Annotated[
        Seconds,
        Meta(description="a new socket must have said session_init or node_register by then"),
    ] = 10.0
    resume_s: Annotated[
        Seconds,
        Meta(description="a client that lost its socket may come back to its session for so long"),
    ] = 10.0


class StoreSettings(Section, frozen=True, kw_only=True):
    """The store that instances share, or the one that the server starts for itself."""

    redis_url: Annotated[
        str,
        Meta(
            description="redis://, rediss:// or unix:// address of the store that the instances "
            "share; '': the server starts a store of its own",
            extra={"secret": "url"},
        ),
    ] = ""
    valkey_path: Annotated[
        FilePath,
        Meta(description="valkey-server or redis-server to start without redis_url; '': found"),
    ] = ""
    cell: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=64,
            pattern=r"^[A-Za-z0-9_.-]+$",
            description="name of the cell, the common part of all keys in the store",
        ),
    ] = "cell"
    timeout_ms: Annotated[
        Count, Meta(description="a call without an answer for this long has an unknown outcome")
    ] = 500
    in_flight_max: Annotated[
        Count, Meta(description="most calls that wait for the store's answer at once")
    ] = 1_000
    inbox_length_max: Annotated[
        Count, Meta(description="about how many entries an instance's inbox stream keeps")
    ] = 10_000
    inbox_block_ms: Annotated[
        Count, Meta(description="how long one read of the inbox waits for an entry")
    ] = 1_000
    presence_s: Annotated[
        Seconds, Meta(description="an instance silent for this long counts as gone")
    ] = 45.0
    protocol_version: Annotated[
        int,
        Meta(
            ge=OLDEST,
            le=NEWEST,
            description="newest version that is spoken to other instances; an older one while an "
            "upgrade may still be taken back",
        ),
    ] = NEWEST


class AuthSettings(Section, frozen=True, kw_only=True):
    """Who may connect; a token file holds one NAME:TOKEN a line."""

    client_tokens_file: Annotated[
        FilePath, Meta(description="tokens of clients; '': none are asked for")
    ] = ""
    node_tokens_file: Annotated[
        FilePath, Meta(description="tokens of nodes; '': none are asked for")
    ] = ""
    allow_anonymous: Annotated[
        bool,
        Meta(description="listen beyond the loopback without asking for tokens"),
    ] = False


class TlsSettings(Section, frozen=True, kw_only=True):
    """TLS of the port; both files or neither."""

    cert: Annotated[FilePath, Meta(description="PEM file with the certificate chain")] = ""
    key: Annotated[FilePath, Meta(description="PEM file with the private key")] = ""


class LimitsSettings(Section, frozen=True, kw_only=True):
    """Bounds of everything that grows from outside."""

    connections_max: Annotated[
        Count, Meta(description="most open sockets, of clients and nodes together")
    ] = 20_000
    sessions_max: Annotated[Count, Meta(description="most sessions on this instance")] = 10_000
    sessions_per_client_max: Annotated[
        Count, Meta(description="most sessions of one token or, without tokens, of one address")
    ] = 1_000
    session_queue_max: Annotated[
        Count, Meta(description="most chunks of one session that wait; more audio is refused")
    ] = 200
    nodes_max: Annotated[Count, Meta(description="most nodes on this instance")] = 10_000
    frame_bytes_max: Annotated[Count, Meta(description="largest frame of a client")] = (
        2 * 1024 * 1024
    )
    node_frame_bytes_max: Annotated[
        Count, Meta(description="largest frame of a node; results carry audio")
    ] = 4 * 1024 * 1024
    outbox_bytes_max: Annotated[
        Count, Meta(description="most bytes that wait for one slow reader before it is closed")
    ] = 8 * 1024 * 1024
    outbox_age_ms_max: Annotated[
        Count, Meta(description="oldest message that waits for a slow reader before it is closed")
    ] = 10_000
    backpressure_at: Annotated[
        Share, Meta(description="share of a bound from which clients are told to slow down")
    ] = 0.8
    refused_logins_per_min_max: Annotated[
        Count, Meta(description="most wrong tokens a minute of one address before it is shut out")
    ] = 60


class CanarySettings(Section, frozen=True, kw_only=True):
    """A share of the sessions that runs another policy."""

    policy: Annotated[
        str,
        Meta(description="the other policy; it may differ in fields per session only; '': none"),
    ] = ""
    share: Annotated[Share, Meta(description="share of the sessions, by hash, that run it")] = 0.0


class SegmentationSection(Section, frozen=True, kw_only=True):
    """When audio becomes an utterance."""

    pause_ms: Annotated[
        CountOrNone, Meta(description="silence that ends an utterance; 0: no cuts by pause")
    ] = 3_000
    max_duration_ms: Annotated[Count, Meta(description="longest utterance")] = 10_000
    max_bytes: Annotated[Count, Meta(description="most bytes of one utterance")] = 512_000
    hangover_auto_ms: Annotated[
        CountOrNone, Meta(description="wait for late audio after a cut that the server made")
    ] = 150
    hangover_manual_ms: Annotated[
        CountOrNone, Meta(description="wait for late audio after a cut that the client asked for")
    ] = 200
    padding_auto_ms: Annotated[
        CountOrNone, Meta(description="silence that the node appends after a cut of the server")
    ] = 220
    padding_manual_ms: Annotated[
        CountOrNone, Meta(description="silence that the node appends after a cut of the client")
    ] = 280


class PoolEntry(Section, frozen=True, kw_only=True):
    """One pool of nodes that offer certain services."""

    pool_id: Annotated[str, Meta(min_length=1, description="its name")]
    required_services: Annotated[
        tuple[str, ...], Meta(description="asr, nmt, tts, tone, semantic; empty: every job fits")
    ] = ()


class PoolsSettings(Section, frozen=True, kw_only=True):
    """Pools of nodes (the reference's phase 3)."""

    enabled: Annotated[bool, Meta(description="whether nodes are pooled at all")] = False
    mode: Annotated[
        Literal["two_level", "single_level"],
        Meta(description="choose a pool and then a node in it, or among all nodes"),
    ] = "two_level"
    pool_count: Annotated[Count, Meta(description="number of hash pools")] = 16
    hash_seed: Annotated[
        int, Meta(ge=0, le=(1 << 63) - 1, description="seed of the hash of a session")
    ] = 0
    fallback_scan_all_pools: Annotated[
        bool, Meta(description="look into the other pools when the first has no node")
    ] = True
    pools: Annotated[
        tuple[PoolEntry, ...],
        Meta(description="pools by service; without any, pools are made by hash"),
    ] = ()
    tenant_overrides: Annotated[
        dict[str, str], Meta(description="tenant -> pool in which its jobs start")
    ] = {}
    pool_match_scope: Annotated[
        Literal["core_only", "all_required"],
        Meta(description="which services of a job a pool must offer"),
    ] = "core_only"
    pool_match_mode: Annotated[
        Literal["contains", "exact"],
        Meta(description="a pool offers at least, or exactly, what a job needs"),
    ] = "contains"
    strict_pool_eligibility: Annotated[
        bool, Meta(description="a job that fits no pool fails instead of trying all")
    ] = False
    auto_generate_language_pools: Annotated[
        bool, Meta(description="make one pool of each set of languages that nodes offer")
    ] = False
    min_nodes_per_pool: Annotated[
        Count, Meta(description="a set of languages with fewer nodes makes no pool")
    ] = 1
    max_pools: Annotated[
        Count, Meta(description="most language pools; those with most nodes are kept")
    ] = 50
    random_sample_size: Annotated[
        Count, Meta(description="members of a pool that one decision looks at")
    ] = 20
    enable_session_affinity: Annotated[
        bool, Meta(description="a session keeps its pool from utterance to utterance")
    ] = False


class HealthSettings(Section, frozen=True, kw_only=True):
    """When a node counts as ready, degraded or gone."""

    healthy_needed: Annotated[
        Count, Meta(description="healthy heartbeats until a new node gets jobs")
    ] = 1
    failures_max: Annotated[Count, Meta(description="failures in a row that degrade a node")] = 3
    warmup_s: Annotated[Seconds, Meta(description="longest time that a node may register")] = 60.0
    silence_s: Annotated[
        Seconds, Meta(description="age of the last heartbeat that means offline")
    ] = 45.0
    node_scan_s: Annotated[Seconds, Meta(description="how often silent nodes are looked for")] = 5.0
    require_gpu: Annotated[
        bool,
        Meta(description="whether nodes that name no GPU are refused, as in the reference"),
    ] = True


class TimeoutsSettings(Section, frozen=True, kw_only=True):
    """Periods of the background work; the times of a job itself are fields of the policy."""

    scan_ms: Annotated[Count, Meta(description="how often jobs past their time are looked for")] = (
        1_000
    )
    heartbeat_s: Annotated[
        float,
        Meta(
            gt=0,
            le=20,
            description="how often an instance says which sessions are its own; the store "
            "forgets after 45 s",
        ),
    ] = 15.0
    room_scan_s: Annotated[
        Seconds, Meta(description="how often rooms are looked for in which nobody speaks")
    ] = 60.0
    remote_refresh_ms: Annotated[
        CountOrNone, Meta(description="how often nodes of other instances are read; 0: each time")
    ] = 2_000


class RecordSettings(Section, frozen=True, kw_only=True):
    """A recording of everything that happens."""

    dir: Annotated[FilePath, Meta(description="empty folder to record into; '': no recording")] = ""
    at_once: Annotated[
        bool,
        Meta(description="write each event as it happens, so that a killed server loses none"),
    ] = False


class LogSettings(Section, frozen=True, kw_only=True):
    """What the server says of itself on standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="least severe line written")
    ] = "info"
    format: Annotated[
        Literal["auto", "text", "json"],
        Meta(description="lines for people or for machines; auto: text on a terminal, else json"),
    ] = "auto"


class Settings(Section, frozen=True, kw_only=True):
    """
    All settings of one instance.

    Raises:
        ConfigError: two settings contradict each other.

    """

    policy: Annotated[
        str,
        Meta(description="how the scheduler decides: a preset, then changes (field=value)"),
    ] = "safe"
    server: ServerSettings = ServerSettings()
    store: StoreSettings = StoreSettings()
    auth: AuthSettings = AuthSettings()
    tls: TlsSettings = TlsSettings()
    limits: LimitsSettings = LimitsSettings()
    canary: CanarySettings = CanarySettings()
    segmentation: SegmentationSection = SegmentationSection()
    pools: PoolsSettings = PoolsSettings()
    health: HealthSettings = HealthSettings()
    timeouts: TimeoutsSettings = TimeoutsSettings()
    record: RecordSettings = RecordSettings()
    log: LogSettings = LogSettings()

    def __post_init__(self) -> None:
        for key, want in faults(self):
            raise ConfigError("settings", key, want)

    def core_settings(self, shared: bool) -> CoreSettings:
        """What the core is given; `shared`: several instances work on the store."""
        return CoreSettings(
            shared=shared,
            cell=self.store.cell,
            version=self.store.protocol_version,
            pools=self.pool_config(),
            segmentation=SegmentationSettings(**msgspec.structs.asdict(self.segmentation)),
            health=HealthLimits(
                healthy_needed=self.health.healthy_needed,
                failures_max=self.health.failures_max,
                warmup_ns=_ns(self.health.warmup_s),
                silence_ns=_ns(self.health.silence_s),
                needs_gpu=self.health.require_gpu,
            ),
            scan_ns=self.timeouts.scan_ms * MS,
            heartbeat_ns=_ns(self.timeouts.heartbeat_s),
            node_scan_ns=_ns(self.health.node_scan_s),
            room_scan_ns=_ns(self.timeouts.room_scan_s),
            remote_refresh_ns=self.timeouts.remote_refresh_ms * MS,
            presence_ns=_ns(self.store.presence_s),
            session_queue_max=self.limits.session_queue_max,
            canary=self.core_canary(),
        )

    def core_policy(self) -> Policy:
        """The policy that `policy` names."""
        return parse_policy(self.policy)

    def core_canary(self) -> Canary | None:
        """The canary's policy and share; None without a canary."""
        if not self.canary.policy:
            return None
        return canary_of(self.core_policy(), parse_policy(self.canary.policy), self.canary.share)

    def pool_config(self) -> PoolConfig:
        """What the core is told about pools."""
        values = msgspec.structs.asdict(self.pools)
        values["pools"] = tuple(
            Pool(pool_id=pool.pool_id, required_services=pool.required_services)
            for pool in self.pools.pools
        )
        values["tenant_overrides"] = tuple(self.pools.tenant_overrides.items())
        return PoolConfig(**values)


def _ns(seconds: float) -> int:
    return round(seconds * SECOND)
