"""
What a node says of itself: services, languages, hardware, as `node_register` and heartbeats do.

A node made by `simsched node` offers recognition, translation and speech for a set of languages or
of pairs. Without a GPU it says so; whether it is let in is the scheduler's business.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from simsched.errors import ConfigError
from simsched.live.dialling import address
from simsched.messages import (
    Capability,
    Device,
    Gpu,
    Hardware,
    InstalledService,
    LanguageCapabilities,
    LanguagePair,
    NmtCapability,
    NodeRegister,
    PairRule,
    RunningJob,
    ServiceStatus,
    ServiceType,
    valid_id,
)

CAPABILITY_SCHEMA: Final = "2.0"
NODE_PATH: Final = "/ws/node"
OFFERED: Final = ("asr", "nmt", "tts", "semantic")
HEARTBEAT_S: Final = 15.0
SLOTS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """
    One node, as a command line describes it; `node_options` checks one.

    Attributes:
        url: of the scheduler's node socket.
        node_id: None: the scheduler names it.
        slots: jobs it runs at once.
        languages: it translates every two of them; empty where `pairs` says what it does.
        pairs: `(source, target)`, where it does not translate all.
        gpu: whether it says that it has a GPU; the reference's scheduler demands one.
        drain_s: how long it finishes what runs when it is asked to stop.

    """

    url: str
    node_id: str | None = None
    token: str = ""
    slots: int = SLOTS
    languages: tuple[str, ...] = ("en", "zh")
    pairs: tuple[tuple[str, str], ...] = ()
    offered: tuple[str, ...] = OFFERED
    gpu: bool = True
    heartbeat_s: float = HEARTBEAT_S
    drain_s: float = 30.0

    @property
    def sources(self) -> tuple[str, ...]:
        """Languages that it recognises."""
        return tuple(sorted({source for source, _ in self.pairs})) or self.languages

    @property
    def targets(self) -> tuple[str, ...]:
        """Languages that it speaks."""
        return tuple(sorted({target for _, target in self.pairs})) or self.languages


def node_options(
    url: str,
    *,
    node_id: str = "",
    token: str = "",
    slots: int = SLOTS,
    languages: str = "",
    pairs: str = "",
    services: str = "",
    gpu: bool = True,
    heartbeat_s: float = HEARTBEAT_S,
    drain_s: float = 30.0,
) -> NodeOptions:
    """
    Options from the texts of a command line.

    Args:
        url: of the scheduler; `/ws/node` is added where it has no path.
        node_id: "" leaves the name to the scheduler.
        token: "" sends none.
        slots: at least 1.
        languages: `en,zh,de`.
        pairs: `en-zh,zh-en`; not together with `languages`.
        services: `asr,nmt,tts,semantic`, what it offers; "" for all of these.
        gpu: whether it says that it has one.
        heartbeat_s: seconds between heartbeats.
        drain_s: seconds for what runs when it is asked to stop.

    Raises:
        ConfigError: one of them is wrong; names it.

    """
    if node_id and not valid_id(node_id):
        raise ConfigError("node", "id", f"letters, digits and . _ : - only, not {node_id!r}")
    if not 1 <= slots <= 10_000:
        raise ConfigError("node", "slots", f"1 to 10000, not {slots}")
    if not heartbeat_s > 0 or drain_s < 0:
        raise ConfigError("node", "heartbeat", "seconds above 0; a deadline to stop of at least 0")
    if languages and pairs:
        raise ConfigError("node", "pairs", "say --languages or --pairs, not both")
    offered = _words(services) or OFFERED
    known = tuple(ServiceType)
    for name in offered:
        if name not in known:
            raise ConfigError("node", "services", f"{', '.join(known)}; not {name!r}")
    return NodeOptions(
        url=address(url, NODE_PATH),
        node_id=node_id or None,
        token=token,
        slots=slots,
        languages=() if pairs else (_words(languages) or ("en", "zh")),
        pairs=tuple(_pair(word) for word in _words(pairs)),
        offered=offered,
        gpu=gpu,
        heartbeat_s=heartbeat_s,
        drain_s=drain_s,
    )


def _words(text: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for word in words:
        if not valid_id(word):
            raise ConfigError("node", "languages", f"{word!r} is no language")
    return words


def _pair(word: str) -> tuple[str, str]:
    """`en-zh`; where a language has a region, `zh-CN:en-US`."""
    source, _, target = word.partition(":" if ":" in word else "-")
    if not source or not target or (":" not in word and "-" in target):
        raise ConfigError("node", "pairs", f"written en-zh, or zh-CN:en-US; not {word!r}")
    return source, target


def registration(
    options: NodeOptions, node_id: str, running: tuple[RunningJob, ...]
) -> NodeRegister:
    """The node's first message."""
    return NodeRegister(
        node_id=node_id or None,
        version=_version(),
        capability_schema_version=CAPABILITY_SCHEMA,
        platform=platform.system().lower() or "unknown",
        hardware=hardware(options),
        installed_models=(),
        installed_services=services(options),
        capability_by_type=capabilities(options),
        accept_public_jobs=True,
        language_capabilities=languages(options),
        slots=options.slots,
        running=running or None,
    )


def hardware(options: NodeOptions) -> Hardware:
    """Cores and memory of this machine; a GPU by name only, for none is looked for."""
    gpus = (Gpu(name="unspecified", memory_gb=0),) if options.gpu else None
    return Hardware(cpu_cores=os.cpu_count() or 1, memory_gb=_memory_gb(), gpus=gpus)


def services(options: NodeOptions) -> tuple[InstalledService, ...]:
    """One running service of every type offered."""
    return tuple(
        InstalledService(
            service_id=f"simsched-{name}",
            type=ServiceType(name),
            device=Device.GPU if options.gpu else Device.CPU,
            status=ServiceStatus.RUNNING,
        )
        for name in options.offered
    )


def capabilities(options: NodeOptions, *, ready: bool = True) -> tuple[Capability, ...]:
    """Everything offered is ready, until the node leaves."""
    reason = None if ready else "leaving"
    return tuple(
        Capability(type=ServiceType(name), ready=ready, reason=reason) for name in options.offered
    )


def languages(options: NodeOptions) -> LanguageCapabilities:
    """What it hears, says and translates."""
    pairs = tuple(LanguagePair(src=source, tgt=target) for source, target in options.pairs)
    both = tuple(sorted({*options.sources, *options.targets}))
    nmt = NmtCapability(
        model_id="simsched-nmt",
        languages=both,
        rule=PairRule.SPECIFIC_PAIRS if pairs else PairRule.ANY_TO_ANY,
        supported_pairs=pairs or None,
    )
    return LanguageCapabilities(
        asr_languages=options.sources,
        tts_languages=options.targets,
        semantic_languages=both,
        nmt_capabilities=(nmt,),
        supported_language_pairs=pairs or None,
        semantic_core_ready=True,
    )


def _version() -> str:
    try:
        return version("simsched")
    except PackageNotFoundError:
        return "0"


def _memory_gb() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    except (AttributeError, ValueError, OSError):
        return 0
