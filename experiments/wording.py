"""
The words of the report's page, in English and Chinese, by message id.

Texts hold no figures of their own: what a run found is put in by name. Both languages have every
id and the same placeholders; a test holds them together. The texts are in
`wording_texts` and `wording_tables`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from simsched.errors import ConfigError
from simsched.experiments.wording_tables import TABLE_TEXTS
from simsched.experiments.wording_texts import PAGE_TEXTS

LANGUAGES: Final = ("en", "zh")
TEXTS: Final = PAGE_TEXTS | TABLE_TEXTS


class Wording:
    """The texts of one language."""

    def __init__(self, lang: str) -> None:
        if lang not in LANGUAGES:
            raise ConfigError("--lang", lang, f"one of {', '.join(LANGUAGES)}")
        self.lang = lang
        self._column = LANGUAGES.index(lang)

    def __call__(self, message: str, otherwise: str = "", /, **values: object) -> str:
        """
        A text with its values put in.

        Args:
            message: its id.
            otherwise: another id, for a message that has no text of its own.
            values: by the names of the placeholders; more than needed is fine.

        """
        texts = TEXTS.get(message) or TEXTS[otherwise]
        return texts[self._column].format(**values)

    def listed(self, items: Iterable[str]) -> str:
        """A list as people write it."""
        return ("、" if self.lang == "zh" else ", ").join(items)

    def clauses(self, items: Iterable[str]) -> str:
        """Clauses of one sentence."""
        return ("；" if self.lang == "zh" else "; ").join(items)
