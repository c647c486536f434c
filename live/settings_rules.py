"""
What must hold between settings: each rule names the setting to change and says what would be right.

Bounds of single values are declared with the fields. These rules see all values at once, so they
hold for settings that were read from anywhere and for those made in a program. Nothing here knows
files or environments.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from simsched.canary import canary_of
from simsched.errors import ConfigError
from simsched.presets import parse_policy

if TYPE_CHECKING:
    from simsched.live.settings import Settings

LOOPBACK_NAMES: Final = ("localhost", "localhost.localdomain")
"""Names that mean this machine, besides the loopback addresses."""

STORE_SCHEMES: Final = ("redis", "rediss", "unix")
ORIGIN_SCHEMES: Final = ("http", "https")

BASE64_NUMERATOR: Final = 4
BASE64_DENOMINATOR: Final = 3
FRAME_SLACK_BYTES: Final = 4_096
"""Room for the fields around the audio of an `audio_chunk` or a `job_assign`."""

Fault = tuple[str, str]
"""The setting's dotted name, and what would be right."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in LOOPBACK_NAMES


def faults(settings: Settings) -> Iterator[Fault]:
    """Every rule that the settings break, the most telling first."""
    for rule in (
        _policy_faults,
        _exposure_faults,
        _tls_faults,
        _address_faults,
        _pool_faults,
        _time_faults,
        _size_faults,
    ):
        yield from rule(settings)


def _policy_faults(settings: Settings) -> Iterator[Fault]:
    try:
        base = parse_policy(settings.policy)
    except ConfigError as error:
        yield "policy", _without_place(error)
        return
    canary = settings.canary
    if not canary.policy:
        if canary.share:
            yield "canary.policy", f"is missing, as canary.share is {canary.share:g}"
        return
    try:
        other = parse_policy(canary.policy)
        canary_of(base, other, canary.share)
    except ConfigError as error:
        yield "canary.policy", _without_place(error)
        return
    if other == base:
        yield "canary.policy", f"differs in nothing from policy = {settings.policy!r}"


def _without_place(error: ConfigError) -> str:
    return f"{error.key}: {error.want}" if error.key else error.want


def _exposure_faults(settings: Settings) -> Iterator[Fault]:
    """Beyond the loopback, whoever connects must show a token or be allowed not to."""
    host = settings.server.host
    if not host or is_loopback(host) or settings.auth.allow_anonymous:
        return
    for kind in ("client", "node"):
        name = f"{kind}_tokens_file"
        if not getattr(settings.auth, name):
            yield (
                f"auth.{name}",
                f"is missing, as server.host = {host!r} is reachable from other "
                "machines: name a file of NAME:TOKEN lines (`simsched config token` makes one), "
                "or set auth.allow_anonymous (--allow-anonymous)",
            )


def _tls_faults(settings: Settings) -> Iterator[Fault]:
    for name, other in (("key", "cert"), ("cert", "key")):
        if getattr(settings.tls, other) and not getattr(settings.tls, name):
            yield f"tls.{name}", f"is missing, as tls.{other} is given"


def _address_faults(settings: Settings) -> Iterator[Fault]:
    server = settings.server
    if not server.host:
        yield "server.host", "an address such as '127.0.0.1', or '0.0.0.0' for all"
    for origin in server.origins:
        if not _is_origin(origin):
            yield (
                "server.origins",
                f"an origin is a scheme, a host and perhaps a port, such as "
                f"'https://app.example', or '*'; not {origin!r}",
            )
    url = settings.store.redis_url
    if url and url.partition("://")[0] not in STORE_SCHEMES:
        known = ", ".join(f"{name}://" for name in STORE_SCHEMES)
        yield "store.redis_url", f"an address that begins with one of {known}"


def _is_origin(text: str) -> bool:
    if text == "*":
        return True
    try:
        parts = urlsplit(text)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    extra = parts.path or parts.query or parts.fragment or parts.username
    return named and parts.scheme in ORIGIN_SCHEMES and not extra


def _pool_faults(settings: Settings) -> Iterator[Fault]:
    try:
        settings.pool_config()
    except ConfigError as error:
        yield f"pools.{error.key}", error.want


LESS: Final[Sequence[tuple[str, str]]] = (
    ("server.ping_s", "server.ping_timeout_s"),
    ("health.node_scan_s", "health.silence_s"),
)
"""Pairs of times of which the first may not be longer than the second."""


def _time_faults(settings: Settings) -> Iterator[Fault]:
    for short, long in LESS:
        least, given = _value(settings, short), _value(settings, long)
        if given < least:
            yield long, f"at least {short} ({least:g}), not {given:g}"


def _size_faults(settings: Settings) -> Iterator[Fault]:
    """What is let in must also get out."""
    limits = settings.limits
    audio = settings.segmentation.max_bytes * BASE64_NUMERATOR // BASE64_DENOMINATOR
    for least, why in (
        (limits.node_frame_bytes_max, "limits.node_frame_bytes_max, as results are passed on"),
        (audio + FRAME_SLACK_BYTES, "segmentation.max_bytes in base64, as it goes to a node"),
    ):
        if limits.outbox_bytes_max < least:
            yield "limits.outbox_bytes_max", f"at least {least} ({why})"


def _value(settings: Settings, dotted: str) -> float:
    section, name = dotted.split(".")
    value: float = getattr(getattr(settings, section), name)
    return value
