"""The style of the report's page: plain CSS, for screens, phones and paper."""

from __future__ import annotations

from typing import Final

STYLE: Final = """\
:root { --ink: #1d2733; --muted: #5b6b7f; --line: #dde3ea; --soft: #f5f7fa; --good: #1a7f4b;
  --bad: #b3261e; --mixed: #a86400; --more: #1763b0; }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0; color: var(--ink); background: #fff; line-height: 1.55;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "PingFang SC",
  "Microsoft YaHei", "Noto Sans CJK SC", sans-serif; }
header, main { max-width: 72rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.25rem; }
h1 { font-size: clamp(1.6rem, 4vw, 2.3rem); line-height: 1.2; margin: 0 0 .6rem; }
h2 { font-size: 1.35rem; margin: 2.6rem 0 .9rem; }
h3 { font-size: 1.02rem; margin: 0 0 .5rem; line-height: 1.35; }
a { color: var(--more); text-underline-offset: 2px; white-space: nowrap; }
svg { width: 100%; height: auto; display: block; }
svg text { font-family: inherit !important; }
figure { margin: 0; }
.wide { max-width: 44rem; margin: 1.2rem 0; }
code { font: .88em ui-monospace, Consolas, "Liberation Mono", monospace; overflow-wrap:
  anywhere; }
.rough { border: 1px solid var(--mixed); border-radius: 6px; background: #fdf1de;
  padding: .6rem .9rem; margin: .9rem 0 0; max-width: 52rem; }
.lead { font-size: 1.08rem; max-width: 52rem; margin: 0; }
.quiet, .note, h3 small { color: var(--muted); font-size: .86rem; font-weight: 400; }
h3 small { white-space: nowrap; }
.answer { list-style: none; margin: 0; padding: 0; border-top: 1px solid var(--line); }
.answer li { padding: .85rem 0 .85rem 1rem; border-bottom: 1px solid var(--line);
  border-left: 5px solid var(--muted); }
.answer h3 { display: flex; flex-wrap: wrap; gap: .2rem .8rem; justify-content: space-between;
  margin: 0 0 .2rem; }
.answer p { margin: 0; max-width: 62rem; }
.word { color: var(--muted); }
.tone-good { border-left-color: var(--good) !important; }
.tone-good .word { color: var(--good); }
.tone-bad { border-left-color: var(--bad) !important; }
.tone-bad .word { color: var(--bad); }
.tone-mixed { border-left-color: var(--mixed) !important; }
.tone-mixed .word { color: var(--mixed); }
.key { color: var(--muted); font-size: .86rem; margin: -.4rem 0 .8rem; }
.band, .dot { display: inline-block; vertical-align: middle; margin: 0 .35rem 0 .8rem; }
.band { width: 1.6rem; height: .8rem; background: #c9d8ea; margin-left: 0; }
.dot { width: .6rem; height: .6rem; border-radius: 50%; background: var(--ink); }
.cards { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%,
  21rem), 1fr)); }
.card { border: 1px solid var(--line); border-top: 4px solid var(--muted); border-radius: 6px;
  padding: 1rem 1.1rem; break-inside: avoid; }
.card.confirmed { border-top-color: var(--good); }
.card.unsafe { border-top-color: var(--bad); }
.card.less { border-top-color: var(--mixed); }
.card.more { border-top-color: var(--more); }
.card p { margin: 0 0 .6rem; }
.number { display: inline-block; min-width: 1.6rem; color: var(--muted); }
.badge { display: inline-block; border-radius: 4px; padding: .05rem .5rem; margin: 0 .35rem
  .2rem 0;
  font-size: .84rem; font-weight: 600; white-space: nowrap; color: var(--muted);
  background: var(--soft); }
.badge small { font-weight: 400; }
.badge.confirmed { color: var(--good); background: #e6f4ec; }
.badge.less { color: #8a5200; background: #fdf1de; }
.badge.more { color: var(--more); background: #e5effa; }
.badge.unsafe { color: var(--bad); background: #fbe9e7; }
dl { margin: .7rem 0 0; font-size: .9rem; display: grid; grid-template-columns: max-content 1fr;
  gap: .25rem .8rem; }
dt { color: var(--muted); grid-column: 1; }
dd { margin: 0; grid-column: 2; overflow-wrap: anywhere; }
.pair { display: grid; gap: 1rem 2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%,
  24rem), 1fr)); }
.pair figure { max-width: 34rem; }
.pair { margin-bottom: 1rem; }
details summary { cursor: pointer; color: var(--more); margin: 1.2rem 0 0; }
.contents { columns: 20rem; font-size: .9rem; margin: .5rem 0 0; padding-left: 1.1rem; }
.contents a, dd a { white-space: normal; }
.table { margin: 1.6rem 0 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .86rem; }
th, td { text-align: left; vertical-align: top; padding: .38rem .7rem .38rem 0;
  border-bottom: 1px solid var(--line); }
th { color: var(--muted); font-weight: 600; border-bottom: 2px solid var(--line); line-height:
  1.3; }
td.n { font-variant-numeric: tabular-nums; white-space: nowrap; }
.note { margin: .5rem 0 0; max-width: 56rem; }
table.race { width: auto; }
.actor-A td { background: #eef4fb; }
.actor-B td { background: #fdf4e7; }
table.race td { padding-left: .7rem; }
main > section:last-child { padding-bottom: 3rem; }
@media print {
  nav { display: none; }
  body { font-size: 10pt; }
  header, main { max-width: none; padding: 0; }
  h2, h3 { break-after: avoid; }
  tr, .answer li, figure { break-inside: avoid; }
  .scroll { overflow: visible; }
  table { font-size: 7.5pt; }
  td.n { white-space: normal; }
  a { color: inherit; text-decoration: none; }
  .badge, .band, .dot, .card, .answer li, .race td { -webkit-print-color-adjust: exact;
  print-color-adjust: exact; }
}
@media (max-width: 34rem) {
  dl { grid-template-columns: 1fr; gap: .1rem; }
  dd { grid-column: 1; margin-bottom: .35rem; }
  .answer li { padding-left: .75rem; }
}
"""
