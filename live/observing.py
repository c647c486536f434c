"""
All that watches one instance, put together: metrics, decision log, recording, pages.

    observers = Observers(settings)
    async with Instance(settings, sinks=observers.sinks) as instance:
        server = Server(instance, observers.attach(instance).answer)
        ...
    observers.close()
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from simsched.live.decisions import DecisionLog
from simsched.live.gauges import software_version
from simsched.live.http import Api
from simsched.live.instance import Instance
from simsched.live.metrics import Metrics
from simsched.live.record import Recorder, policy_fields
from simsched.live.serving import Serving
from simsched.live.settings import Settings
from simsched.live.sinks import Sink
from simsched.placement import Choice


class Observers:
    """
    Made before the instance starts, attached to it after.

    Raises:
        ConfigError: the folder to record into is not ours to use.

    """

    def __init__(self, settings: Settings) -> None:
        self.metrics = Metrics(settings.core_canary())
        self.decisions = DecisionLog()
        record = settings.record
        self.recorder = Recorder(Path(record.dir), at_once=record.at_once) if record.dir else None
        self.sinks: list[Sink] = [self.metrics, self.decisions]
        if self.recorder is not None:
            self.sinks.append(self.recorder)
        self._drops_told = 0
        self.metrics.on_scrape.append(self._tell_drops)

    def attach(self, instance: Instance) -> Api:
        """Listen to the choices of a started instance; returns what answers GET requests."""
        self.decisions.epoch_ms = instance.runtime.epoch_ms
        instance.scheduler.dispatcher.placement.on_choice = self._choice
        if self.recorder is not None:
            self.recorder.begin(recording_header(instance))
        return Api(Serving(instance, self.metrics, self.decisions))

    def _choice(self, choice: Choice) -> None:
        self.decisions.choice(choice)
        if self.recorder is not None:
            self.recorder.choice(choice)

    def _tell_drops(self) -> None:
        dropped = self.recorder.dropped if self.recorder is not None else 0
        self.metrics.count("recording_dropped", dropped - self._drops_told)
        self._drops_told = dropped

    def close(self) -> None:
        """End the recording; the instance has stopped."""
        if self.recorder is not None:
            self.recorder.close()


def recording_header(instance: Instance) -> dict[str, Any]:
    """What a recording says of the instance that it was made of; passwords are left out."""
    settings = instance.settings
    core = settings.core_settings(instance.shared)
    plain = msgspec.to_builtins(settings)
    plain["store"]["redis_url"] = "set" if settings.store.redis_url else ""
    return {
        "instance": instance.instance_id,
        "version": software_version(),
        "epoch_ms": instance.runtime.epoch_ms,
        "origin_ns": instance.runtime.origin_ns,
        "store": instance.store_kind,
        "shared": instance.shared,
        "settings": plain,
        "policy": policy_fields(settings.core_policy()),
        "canary": {
            "policy": policy_fields(core.canary.policy),
            "share_ppm": core.canary.share_ppm,
        }
        if core.canary
        else None,
        "check": {
            "pause_ns": core.segmentation.pause_ns,
            "hangover_ns": 1_000_000
            * max(core.segmentation.hangover_auto_ms, core.segmentation.hangover_manual_ms),
            "scan_ns": core.scan_ns,
        },
    }
