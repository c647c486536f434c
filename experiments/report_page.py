"""
The page that a decision maker opens: one HTML file that needs nothing else.

It lays out what `report_findings` and `report_tables` computed: the answer in five lines, a card
per proposal, stages, tables by the report's section numbers, and how all of it was computed. It
works on paper and on a phone, and computes nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from simsched.experiments.report_answers import Line
from simsched.experiments.report_cards import Card
from simsched.experiments.report_style import STYLE
from simsched.experiments.report_tables import DASH, Table
from simsched.experiments.wording import Wording

LANG_TAGS: Final = {"en": "en", "zh": "zh-CN"}
BADGED: Final = {
    "confirmed": "confirmed",
    "confirmed_zero": "confirmed",
    "less": "less",
    "more": "more",
    "unsafe": "unsafe",
    "undecided": "undecided",
}
"""The look of each verdict's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """What trying all orders showed: sentences, and moves of the shortest double."""

    sentences: tuple[str, ...]
    lead: str
    moves: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Everything that is on the page."""

    lines: Sequence[Line]
    cards: Sequence[Card]
    stage_cards: Sequence[Card]
    stage_pictures: Sequence[str]
    repeat_picture: str
    race: Race
    tables: Sequence[Table]
    method: Sequence[tuple[str, str]]
    code: Sequence[tuple[str, str]]
    subtitle: str = ""
    rough: str = ""
    """What the quick form is to be told apart by; "" for the whole study."""


def page_html(page: Page, say: Wording) -> str:
    """The whole file."""
    parts = [
        "<!doctype html>",
        f'<html lang="{LANG_TAGS[say.lang]}"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(say('page.title'))}</title>",
        f"<style>{STYLE}</style></head><body>",
        f"<header><h1>{escape(say('page.title'))}</h1>",
        f'<p class="lead">{escape(say("page.lead"))}</p>',
        f'<p class="quiet">{escape(page.subtitle)}</p>{_rough(page)}</header><main>',
        _answer(page.lines, say),
        _contents(page.tables, say),
        _cards(page, say),
        _stages(page, say),
        _race(page, say),
        _tables(page.tables, say),
        _method(page, say),
        "</main></body></html>\n",
    ]
    return "\n".join(parts)


def _rough(page: Page) -> str:
    return f'<p class="rough">{escape(page.rough)}</p>' if page.rough else ""


def _heading(say: Wording, key: str) -> str:
    return f'<h2 id="part-{key}">{escape(say(f"page.{key}"))}</h2>'


def _answer(lines: Sequence[Line], say: Wording) -> str:
    items = "".join(
        f'<li class="tone-{line.tone}"><h3>{escape(line.asked)}'
        f'<strong class="word">{escape(line.word)}</strong></h3><p>{escape(line.text)} '
        f'<a href="#{line.evidence}">{escape(say("page.evidence"))} →</a></p></li>'
        for line in lines
    )
    reading = f'<p class="note">{escape(say("page.reading"))}</p>'
    return f'<section>{_heading(say, "answer")}<ol class="answer">{items}</ol>{reading}</section>'


def _contents(tables: Sequence[Table], say: Wording) -> str:
    """Links to the parts, and to every table by the report's own section number."""
    parts = [(f"part-{key}", say(f"page.{key}")) for key in ("proposals", "by-stage", "race")]
    parts += [
        (table.id, f"{table.section} {table.title}" if table.section != DASH else table.title)
        for table in tables
    ]
    links = "".join(
        f'<li><a href="#{place}">{escape(title)}</a></li>'
        for place, title in [*parts, ("part-method", say("page.method"))]
    )
    summary = f"<summary>{escape(say('page.contents'))}</summary>"
    return f'<nav><details>{summary}<ul class="contents">{links}</ul></details></nav>'


def _cards(page: Page, say: Wording) -> str:
    cards = "".join(_card(card, say) for card in page.cards)
    key = (
        f'<p class="key"><span class="band"></span>{escape(say("plot.promised"))} '
        f'<span class="dot"></span>{escape(say("plot.measured"))}</p>'
    )
    return f'<section>{_heading(say, "proposals")}{key}<div class="cards">{cards}</div></section>'


def _card(card: Card, say: Wording) -> str:
    badges = "".join(
        f'<span class="badge {verdict}"><small>{escape(phase)}</small> {escape(text)}</span>'
        for phase, verdict, text in card.badges
    )
    facts = "".join(
        f"<dt>{escape(label)}</dt>" + "".join(f"<dd>{escape(text)}</dd>" for text in texts)
        for label, texts in card.facts
    )
    links = "".join(
        f'<dd><a href="#{place}">{escape(title)}</a></dd>' for place, title in card.evidence
    )
    number = f'<span class="number">{escape(card.number)}</span>' if card.number else ""
    section = escape(say("page.section", section=card.section))
    figure = f"<figure>{card.picture}</figure>" if card.picture else ""
    return (
        f'<article class="card {card.tone}" id="card-{card.id}"><h3>{number}'
        f"{escape(card.title)} <small>{section}</small></h3><p>{badges}</p>{figure}"
        f"<dl>{facts}<dt>{escape(say('card.evidence'))}</dt>{links}</dl></article>"
    )


def _stages(page: Page, say: Wording) -> str:
    pictures = "".join(f"<figure>{picture}</figure>" for picture in page.stage_pictures)
    cards = "".join(_card(card, say) for card in page.stage_cards)
    tables = "".join(_table(table, say) for table in page.tables if table.id == "stages")
    return (
        f'<section>{_heading(say, "by-stage")}<div class="pair">{pictures}</div>'
        f'<div class="cards">{cards}</div>{tables}</section>'
    )


def _race(page: Page, say: Wording) -> str:
    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in page.race.sentences)
    rows = "".join(
        f'<tr class="actor-{escape(actor)}"><td>{place}</td><td>{escape(actor)}</td>'
        f"<td><code>{escape(command)}</code></td><td><code>{escape(reply)}</code></td></tr>"
        for place, (actor, command, reply) in enumerate(page.race.moves, start=1)
    )
    heads = "".join(
        f"<th>{escape(text)}</th>"
        for text in (
            "",
            say("race.instance"),
            say("race.operation"),
            say("race.reply"),
        )
    )
    shown = (
        f'<p>{escape(page.race.lead)}</p><div class="scroll"><table class="race"><thead>'
        f"<tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        if page.race.moves
        else ""
    )
    picture = f'<figure class="wide">{page.repeat_picture}</figure>' if page.repeat_picture else ""
    return f"<section>{_heading(say, 'race')}<ul>{sentences}</ul>{shown}{picture}</section>"


def _tables(tables: Sequence[Table], say: Wording) -> str:
    shown = "".join(_table(table, say) for table in tables if table.id != "stages")
    return f"<section>{_heading(say, 'tables')}{shown}</section>"


def _table(table: Table, say: Wording) -> str:
    section = say("page.section", section=table.section) if table.section != DASH else ""
    heads = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    words = {say(f"verdict.{verdict}"): look for verdict, look in BADGED.items()}
    rows = "".join(
        "<tr>" + "".join(_cell(cell, words) for cell in row) + "</tr>" for row in table.rows
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<div class="table" id="{table.id}"><h3>{escape(table.title)} '
        f'<small>{escape(section)}</small></h3><div class="scroll"><table><thead><tr>{heads}</tr>'
        f"</thead><tbody>{rows}</tbody></table></div>{note}</div>"
    )


def _cell(text: str, words: dict[str, str]) -> str:
    if text in words:
        return f'<td><span class="badge {words[text]}">{escape(text)}</span></td>'
    number = text[:1].isdigit() or text[:1] in "-–≤"
    return f'<td class="n">{escape(text)}</td>' if number else f"<td>{escape(text)}</td>"


def _method(page: Page, say: Wording) -> str:
    texts = "".join(f"<p>{escape(text)}</p>" for _, text in page.method)
    codes = "".join(
        f"<p>{escape(label)}<code>{escape(text)}</code></p>" for label, text in page.code
    )
    return f"<section>{_heading(say, 'method')}{texts}{codes}</section>"
