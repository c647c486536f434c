"""
What a client has asked for and what it has been answered, across the connections of its session.

Utterances that the caller cut and numbered are kept until they have an answer, so that they can be
asked for again on the next connection; one answer counts, whichever session gave it. Of streamed
speech the server numbers the utterances: there a session and an index name one answer. Knows no
sockets.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from msgspec import structs

from simsched.messages import MissingResult, TranslationResult, UiEvent, Utterance

ANSWERS_MAX: Final = 10_000
"""Final answers that are remembered, to know a repeated one."""


class Asking:
    """The utterances of one client."""

    def __init__(self) -> None:
        self._asked: dict[int, Utterance] = {}
        self._numbered: OrderedDict[int, None] = OrderedDict()
        self._answered: OrderedDict[tuple[str, int], None] = OrderedDict()

    @property
    def numbers_itself(self) -> bool:
        """Whether the caller has numbered any utterance."""
        return bool(self._asked or self._numbered)

    @property
    def unanswered(self) -> int:
        """How many numbered utterances have no answer yet."""
        return len(self._asked)

    def ask(self, utterance: Utterance) -> None:
        """An answer is wanted from now on; one that is asked for anew may be answered anew."""
        self._asked[utterance.utterance_index] = utterance
        self._numbered.pop(utterance.utterance_index, None)

    def again(self, session_id: str) -> list[Utterance]:
        """What has to be said once more, in order, on a new connection."""
        return [
            structs.replace(self._asked[index], session_id=session_id, again=True)
            for index in sorted(self._asked)
        ]

    def settles(self, event: TranslationResult | MissingResult | UiEvent, session_id: str) -> bool:
        """Whether a numbered utterance of the session has its answer now, for the first time."""
        index = event.utterance_index
        if event.session_id != session_id or self._asked.pop(index, None) is None:
            return False
        self._numbered[index] = None
        if len(self._numbered) > ANSWERS_MAX:
            self._numbered.popitem(last=False)
        return True

    def is_repeated(self, event: TranslationResult | MissingResult, session_id: str) -> bool:
        """Whether this was answered before; else it is from now on."""
        if self.settles(event, session_id):
            return False
        if event.session_id == session_id and event.utterance_index in self._numbered:
            return True
        key = (event.session_id, event.utterance_index)
        if key in self._answered:
            return True
        self._answered[key] = None
        if len(self._answered) > ANSWERS_MAX:
            self._answered.popitem(last=False)
        return False
