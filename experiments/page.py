"""
A plain page of findings: headings, sentences, tables and line plots in one file that opens offline.

For studies whose answer is a few tables. Everything is escaped here; plots are inline SVG without
dates or random names, so the same study writes the same bytes. What is on the page is the caller's.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from simsched.experiments.intervals import Estimate, format_estimate

Curves = Mapping[str, Sequence[tuple[float, float, float]]]
"""By label: points of x, y and the half width of y."""

DASH: Final = "–"

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border-bottom: 1px solid #ccc; padding: .25rem .7rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
td:not(:first-child) { white-space: nowrap; }
caption { text-align: left; font-weight: 600; }
.scroll { overflow-x: auto; }
.finding { border-left: 4px solid #06c; padding-left: 1rem; }
.note { color: #555; }
svg { max-width: 100%; height: auto; }
"""


def figure(estimate: Estimate | None) -> str:
    """Number and interval for people: `112,300 ± 2,400 ms`; a dash for none."""
    if estimate is None:
        return DASH
    if not math.isfinite(estimate.half_width):
        return _thousands(f"{estimate.estimate:.4g} {estimate.unit}".strip() + " (n = 1)")
    if estimate.half_width == 0.0:
        return _thousands(f"{estimate.estimate:.6g} {estimate.unit}".strip())
    return _thousands(format_estimate(estimate, sign="±"))


def _thousands(text: str) -> str:
    """Long whole parts in groups of three digits."""
    return re.sub(r"(?<![\d.])\d{4,}", lambda found: f"{int(found[0]):,}", text)


class Page:
    """One page in the making; `text` is the whole of it."""

    def __init__(self, title: str, lang: str) -> None:
        self._head = (
            f'<!doctype html>\n<html lang="{escape(lang)}">\n<head>\n<meta charset="utf-8">\n'
            f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        )
        self._body = [f"<h1>{escape(title)}</h1>"]

    def heading(self, text: str) -> None:
        """The title of a section."""
        self._body.append(f"<h2>{escape(text)}</h2>")

    def sentence(self, text: str, *, role: str = "") -> None:
        """A paragraph; `role` is `finding`, `note` or nothing."""
        mark = f' class="{escape(role)}"' if role else ""
        self._body.append(f"<p{mark}>{escape(text)}</p>")

    def table(self, caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table of texts; a caption of "" where a heading stands just above it."""
        named = f"<caption>{escape(caption)}</caption>\n" if caption else ""
        cells = "".join(f"<th>{escape(name)}</th>" for name in head)
        lines = [
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
        ]
        self._body.append(
            f'<div class="scroll"><table>{named}<tr>{cells}</tr>\n'
            + "\n".join(lines)
            + "\n</table></div>"
        )

    def lines(self, title: str, x_label: str, y_label: str, curves: Curves, **scales: str) -> None:
        """A plot of curves with their intervals; `xscale` and `yscale` as matplotlib's."""
        if any(len(points) for points in curves.values()):
            self._body.append(f"<figure>{_svg(title, x_label, y_label, curves, scales)}</figure>")

    @property
    def text(self) -> str:
        """The whole page."""
        return self._head + "\n".join(self._body) + "\n</body>\n</html>\n"

    def write(self, path: Path) -> None:
        """Write the page."""
        path.write_text(self.text, encoding="utf-8")


def _svg(title: str, x_label: str, y_label: str, curves: Curves, scales: Mapping[str, Any]) -> str:
    # Text stays text: no glyph outlines, so any script shows in the reader's own font.
    with mpl.rc_context({"svg.hashsalt": "simsched", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 4), layout="constrained")
        axes = figure.add_subplot()
        for label, points in curves.items():
            if points:
                xs, ys, half_widths = zip(*points, strict=True)
                axes.errorbar(xs, ys, yerr=half_widths, label=label, marker="o", capsize=3)
        axes.set(title=title, xlabel=x_label, ylabel=y_label, **scales)
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize="small")
        text = io.StringIO()
        with warnings.catch_warnings():
            # Only the layout looks at glyphs here: what draws them is the reader's font.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
