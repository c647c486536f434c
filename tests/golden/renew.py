"""
Write the golden digests anew: `./dev python -m tests.golden.renew`.

docs/studies.md says when that is right. Digests are kept per CPU architecture, as the last bits of
logarithms may differ between them; those of other architectures are left as they are.
"""

from __future__ import annotations

import json
import platform
import tempfile
from pathlib import Path

from simsched.experiments.results import variant_digest
from simsched.experiments.runner import Runner
from simsched.experiments.runs import StudyRun
from simsched.experiments.study import Study
from simsched.experiments.workers import HereAlone

HERE = Path(__file__).parent
STUDY = HERE / "small.toml"
DIGESTS = HERE / "digests.json"


def play(study: Study) -> StudyRun:
    """Run a study in this process, and keep nothing."""
    with tempfile.TemporaryDirectory() as folder, HereAlone() as workers:
        return Runner(study, Path(folder), workers).run()


def digests(run: StudyRun) -> dict[str, str]:
    """The digest of every variant."""
    return {name: variant_digest(variant) for name, variant in run.variants.items()}


def known() -> dict[str, dict[str, str]]:
    """The kept digests, by architecture and variant."""
    kept: dict[str, dict[str, str]] = json.loads(DIGESTS.read_text(encoding="utf-8"))
    return kept


def main() -> None:
    """Renew the entry of this architecture."""
    kept = known() if DIGESTS.exists() else {}
    kept[platform.machine()] = digests(play(Study.load(STUDY)))
    DIGESTS.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
