"""
The finished replications of a run that is not complete yet: one file each, written at once.

A file's name is a fingerprint of everything that its content depends on, the code included: what
was finished under another seed, setting or version is never taken for this one's. Once the run's
results are written, the folder goes.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Final

from simsched.experiments.replicate import Finished
from simsched.experiments.runs import Pilot
from simsched.experiments.study import Study, Variant

FOLDER: Final = ".replications"
_SOURCES: Final = (".py", ".lua", ".toml")


class FinishedFolder:
    """The folder inside a run directory."""

    def __init__(self, study: Study, folder: Path, pilots: Mapping[str, Pilot]) -> None:
        self._study = study
        self._folder = folder
        self._prefixes = {
            variant.name: _fingerprint(study, variant, pilots.get(variant.name))
            for variant in study.variants
        }
        folder.mkdir(parents=True, exist_ok=True)

    def has(self, variant: str, replication: int) -> bool:
        """Whether the replication was finished, now or by a run before this one."""
        return self._path(variant, replication).exists()

    def keep(self, finished: Finished) -> None:
        """Write one replication: whole or not at all."""
        path = self._path(finished.variant, finished.replication)
        write_whole(path, pickle.dumps(finished, protocol=pickle.HIGHEST_PROTOCOL))

    def read(self, variant: str, replication: int) -> Finished:
        """A finished replication."""
        with self._path(variant, replication).open("rb") as file:
            finished: Finished = pickle.load(file)
        return finished

    def remove(self) -> None:
        """The run is complete: nothing is to be resumed."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, variant: str, replication: int) -> Path:
        return self._folder / f"{self._prefixes[variant]}-{replication:05d}"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it, a full disk included."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _fingerprint(study: Study, variant: Variant, pilot: Pilot | None) -> str:
    root = study.root_of(variant)
    parts = [
        code_fingerprint(), study.seed, study.replications, study.ties, study.warmup_ns,
        study.keep_steps, root.table, root.policy_text, variant.name, variant.table,
        variant.policy_text, None if pilot is None else pilot.sessions_per_s,
    ]  # fmt: skip
    text = json.dumps(parts, sort_keys=True, default=str)
    return sha256(text.encode()).hexdigest()[:20]


@cache
def code_fingerprint() -> str:
    """Of the sources of simsched: results of other code are other results."""
    digest = sha256()
    for folder in (".", "models", "models/costs", "experiments", "lua", "messages"):
        place = resources.files("simsched").joinpath(folder)
        for file in sorted(place.iterdir(), key=lambda file: file.name):
            if file.name.endswith(_SOURCES):
                digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
