"""The table of what was overloaded, for the report's page: a growth instead of a mean."""

from __future__ import annotations

from simsched.experiments.overloads import overloads_of
from simsched.experiments.report_tables import Table
from simsched.experiments.runs import StudyRun
from simsched.experiments.wording import Wording


def overloaded_variants(run: StudyRun, say: Wording) -> list[Table]:
    """One table if work piled up in any variant, else none."""
    found = overloads_of(run)
    if not found:
        return []
    return [
        Table(
            id="overloaded", section="4.3", title=say("overloaded.title"),
            rows=tuple((name, over.text(say.lang, sign="±")) for name, over in found.items()),
            columns=(say("column.variant"), say("column.growth")), note=say("overloaded.note"),
        )
    ]  # fmt: skip
