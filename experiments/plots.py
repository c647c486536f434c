"""
The report's pictures, as SVG texts to be put into a page.

Drawn without a display; the same data give the same bytes: ids are salted with a constant and no
date is written. Text stays text, in the page's own font, so that Chinese needs no font here.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from simsched.experiments.figures import Range
from simsched.experiments.intervals import Estimate

INK: Final = "#1d2733"
MUTED: Final = "#66758a"
GRID: Final = "#dde3ea"
PROMISED: Final = "#c9d8ea"
TONES: Final = {
    "confirmed": "#1a7f4b",
    "less": "#a86400",
    "more": "#1763b0",
    "unsafe": "#b3261e",
    "undecided": "#66758a",
}

STYLE: Final[Any] = {
    "svg.hashsalt": "simsched",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "text.color": INK,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One line of an interval plot: a promised range, a measured saving, a verdict."""

    label: str
    promised: Range
    saving: Estimate
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One line over the gaps: values with the ends of their intervals."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    tone: str


def intervals(bars: Sequence[Bar], xlabel: str, name: str, *, width: float = 5.2) -> str:
    """Promised ranges as bands, measured savings as points with their intervals."""
    whole = 0.55 + 0.36 * len(bars)
    left = 0.78 / width
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, whole))
        axes = figure.add_axes((left, 0.46 / whole, 0.97 - left, 0.36 * len(bars) / whole))
        for place, bar in enumerate(reversed(bars)):
            low, high = bar.promised
            axes.barh(place, high - low, left=low, height=0.62, color=PROMISED, zorder=1)
            half = bar.saving.half_width if bar.saving.replications > 1 else 0.0
            axes.errorbar(
                bar.saving.estimate, place, xerr=half, fmt="o", markersize=5, capsize=4,
                color=TONES[bar.verdict], zorder=3,
            )  # fmt: skip
        axes.axvline(0, color=MUTED, linewidth=0.8, zorder=2)
        axes.set_yticks(range(len(bars)), [bar.label for bar in reversed(bars)])
        axes.set_ylim(-0.6, len(bars) - 0.4)
        axes.set_xlabel(xlabel, fontsize=8)
        axes.grid(axis="x", color=GRID, linewidth=0.6)
        _plain(axes)
        return _svg(figure, name)


def curves(lines: Sequence[Curve], xlabel: str, ylabel: str, name: str) -> str:
    """Lines with bands over a common axis."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.2, 2.9))
        axes = figure.add_axes((0.13, 0.17, 0.84, 0.78))
        for number, line in enumerate(lines):
            colour = TONES[line.tone]
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(
                line.x, line.y, marker="osD^v"[number % 5], markersize=4, color=colour,
                linewidth=1.4, label=line.label, linestyle=("-", "--", "-.", ":")[number % 4],
            )  # fmt: skip
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.set_ylim(bottom=0)
        axes.grid(color=GRID, linewidth=0.6)
        axes.legend(frameon=False, fontsize=8)
        _plain(axes)
        return _svg(figure, name)


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)
    axes.set_axisbelow(True)


def _svg(figure: Figure, name: str) -> str:
    """The picture as an element of a page: its ids begin with `name`, its size is the page's."""
    sink = StringIO()
    with warnings.catch_warnings():
        # The browser draws the letters: matplotlib's own font need not have them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(
            sink, format="svg", metadata={"Date": None, "Creator": None}, transparent=True
        )
    text = sink.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\1{name}-", text)
    text = re.sub(r'<svg([^>]*?) width="[^"]+"', r"<svg\1", text, count=1)
    text = re.sub(r'<svg([^>]*?) height="[^"]+"', r"<svg\1", text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text.replace("<svg", '<svg role="img"', 1)
