"""
What a node can translate: its declared languages, turned once into the pairs that it serves.

A node declares up to five things (domain: `language_capabilities`): the languages it recognises
(ASR), speaks (TTS) and repairs (semantic), the rules of its translation models (NMT), and a list
of pairs of its own making. Rules, in order:

- its own list of pairs, where it gives one, is its last word;
- else the union of its NMT models, each by its rule, less what the model blocks;
- else, where it declares neither, every two of its semantic languages.

Everything is enumerated when the node registers, so that a question about one pair is a look-up.
A pair is `(source, target)`; a source `auto` means: recognise which language is spoken.
This module knows no nodes, no load and no pools.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import permutations
from typing import Final

AUTO: Final = "auto"
"""The source language of a speaker whose language is not known beforehand."""

ENGLISH: Final = "en"
"""The pivot of the rules any_to_en and en_to_any."""

Pair = tuple[str, str]
"""(source language, target language)."""


def _any_to_any(languages: tuple[str, ...], _listed: tuple[Pair, ...]) -> Iterable[Pair]:
    return permutations(languages, 2)


def _any_to_en(languages: tuple[str, ...], _listed: tuple[Pair, ...]) -> Iterable[Pair]:
    return ((language, ENGLISH) for language in languages if language != ENGLISH)


def _en_to_any(languages: tuple[str, ...], _listed: tuple[Pair, ...]) -> Iterable[Pair]:
    return ((ENGLISH, language) for language in languages if language != ENGLISH)


def _specific_pairs(_languages: tuple[str, ...], listed: tuple[Pair, ...]) -> Iterable[Pair]:
    return listed


NMT_RULES: Final[dict[str, Callable[[tuple[str, ...], tuple[Pair, ...]], Iterable[Pair]]]] = {
    "any_to_any": _any_to_any,
    "any_to_en": _any_to_en,
    "en_to_any": _en_to_any,
    "specific_pairs": _specific_pairs,
}
"""The wire's names of the rules, and what each says of (languages, listed pairs)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NmtCapability:
    """
    One translation model: which pairs it takes.

    Raises:
        ValueError: the rule is none of `NMT_RULES`.

    """

    rule: str
    languages: tuple[str, ...] = ()
    supported_pairs: tuple[Pair, ...] = ()
    blocked_pairs: tuple[Pair, ...] = ()

    def __post_init__(self) -> None:
        if self.rule not in NMT_RULES:
            raise ValueError(f"NMT rule: one of {', '.join(NMT_RULES)}, not {self.rule!r}")

    def pairs(self) -> tuple[Pair, ...]:
        """The pairs it translates, in the order in which they were declared."""
        blocked = frozenset(self.blocked_pairs)
        offered = NMT_RULES[self.rule](self.languages, self.supported_pairs)
        return tuple(pair for pair in dict.fromkeys(offered) if pair not in blocked)


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageCapabilities:
    """
    Everything one node declares about languages, and what follows from it.

    Attributes:
        translated: pairs that it can translate; `(auto, target)` where it also recognises at
            least one language that it can translate into the target.
        served: pairs that it recognises *and* translates, sorted, `auto` included. What the
            language index is built from; whether it also speaks the target is asked per job,
            because not every job wants speech.

    """

    asr: tuple[str, ...] = ()
    tts: tuple[str, ...] = ()
    semantic: tuple[str, ...] = ()
    nmt: tuple[NmtCapability, ...] = ()
    declared_pairs: tuple[Pair, ...] = ()
    translated: frozenset[Pair] = field(init=False, repr=False, compare=False)
    served: tuple[Pair, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        translated = frozenset(self._declared())
        heard = sorted(pair for pair in translated if pair[0] in self.asr)
        auto = {(AUTO, target): None for _, target in heard}
        object.__setattr__(self, "translated", translated.union(auto))
        object.__setattr__(self, "served", tuple(sorted({**dict.fromkeys(heard), **auto})))

    def _declared(self) -> tuple[Pair, ...]:
        if self.declared_pairs:
            return self.declared_pairs
        if self.nmt:
            return tuple(pair for model in self.nmt for pair in model.pairs())
        return tuple(permutations(self.semantic, 2))

    def translates(self, source: str, target: str, *, auto: bool = True) -> bool:
        """
        Whether it translates the pair.

        Args:
            source: language or `auto`.
            target: language.
            auto: whether `auto` may stand for any language that it recognises. The reference
                looks `auto` up like a language and never finds it (B17): pass False for that.

        """
        return (source, target) in self.translated and (auto or source != AUTO)

    def recognises(self, source: str) -> bool:
        """Whether it has speech recognition for the source; for `auto`: for anything at all."""
        return bool(self.asr) if source == AUTO else source in self.asr


NO_LANGUAGES: Final = LanguageCapabilities()
"""A node that declares nothing about languages: it serves no pair."""
