"""One self-contained HTML page: no script, no font, no address outside itself; pictures are inline SVG."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

from serried.display.fleet_pictures import lines_svg, tiles_svg
from serried.display.spec import Bar, Curve, Section, Span, Stack
from serried.units import significant

__all__ = ["page"]

_STYLE = """
:root { --ink:#1b2430; --soft:#5b6776; --line:#dfe4ea; --paper:#ffffff; --level:#2f5d8a; --gain:#2e8b62;
  --loss:#c2513f }
@media (prefers-color-scheme: dark) { :root { --ink:#e8ecf1; --soft:#9aa7b5; --line:#303a46; --paper:#141a21;
  --level:#6aa3d8; --gain:#56c08f; --loss:#e5806e } }
body { font:15px/1.5 system-ui,sans-serif; color:var(--ink); background:var(--paper); max-width:1060px;
  margin:2.5rem auto; padding:0 1.25rem }
h1 { font-size:1.5rem; margin:0 0 .25rem } h2 { font-size:1.1rem; margin:2.2rem 0 .4rem }
p { color:var(--soft); max-width:78ch; margin:.2rem 0 .8rem } svg { width:100%; height:auto; display:block }
text { fill:var(--ink); font:13px system-ui,sans-serif } text.soft { fill:var(--soft) } line { stroke:var(--line) }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums; font-size:14px }
th,td { text-align:right; padding:.3rem .6rem; border-bottom:1px solid var(--line); vertical-align:top }
th { color:var(--soft); font-weight:500 } th:first-child,td:first-child { text-align:left }
footer { margin:3rem 0 1rem; color:var(--soft); font-size:13px; border-top:1px solid var(--line); padding-top:.6rem }
"""
#: One colour a cause, in the order of first appearance; told apart by people who do not see red and green.
_PALETTE = ("#2f5d8a", "#e0a03a", "#2e8b62", "#8a5fa8", "#c2513f", "#4ba3a8", "#8c6d46", "#d07fa8", "#7a8793",
            "#b7b23c")


def page(title: str, lead: str, sections: Iterable[Section], *, footer: str = "") -> str:
    """The page as text: a heading, a lead sentence, then every section with its pictures and tables."""
    body = "\n".join(_section(section) for section in sections)
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_safe(title)}</title>'
            f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style></head>\n'
            f"<body><h1>{_safe(title)}</h1><p>{_safe(lead)}</p>\n{body}\n<footer>{_safe(footer)}</footer></body></html>\n")


def _section(section: Section) -> str:
    parts = [f"<h2>{_safe(section.title)}</h2>"]
    if section.text:
        parts.append(f"<p>{_safe(section.text)}</p>")
    if section.bars:
        parts.append(_waterfall(section.bars, section.unit, section.less_is_better))
    if section.spans:
        parts.append(_timeline(section.spans))
    if section.stacks:
        parts.append(_stacks(section.stacks))
    if section.curves:
        parts.append(_curves(section.curves, section.axes))
    if section.tiles:
        parts.append(tiles_svg(section.tiles))
    if section.lines:
        parts.append(lines_svg(section.lines, across=section.across))
    if section.rows:
        parts.append(_table(section.header, section.rows))
    return "\n".join(parts)


def _waterfall(bars: Sequence[Bar], unit: str, less_is_better: bool | None) -> str:
    left, right, row = 250, 770, 30
    levels, level = [], 0.0
    for bar in bars:
        start = 0.0 if bar.kind == "level" else level
        level = bar.value if bar.kind == "level" else level + bar.value
        levels.append((start, level))
    lowest = min(0.0, *(min(pair) for pair in levels))
    reach = max(max(pair) for pair in levels) - lowest or 1.0

    def across(value: float) -> float:
        return left + (right - left) * (value - lowest) / reach

    drawn = []
    for position, (bar, (start, end)) in enumerate(zip(bars, levels, strict=True)):
        y = 8 + position * row
        neutral = bar.kind == "level" or bar.value == 0 or less_is_better is None
        colour = "level" if neutral else "gain" if (bar.value < 0) == less_is_better else "loss"
        sign = "" if bar.kind == "level" else "+" if bar.value >= 0 else "−"
        told = bar.low is not None and bar.high is not None and (bar.low, bar.high) != (0.0, 0.0)
        interval = f"  ({significant(bar.low or 0.0)} … {significant(bar.high or 0.0)})" if told else ""
        shown = f"{sign}{significant(abs(bar.value), 4)}" if bar.value else "0"
        width = max(1.5, across(max(start, end)) - across(min(start, end)))
        drawn.append(f'<g><title>{_safe(bar.note or bar.label)}</title>'
                     f'<text x="{left - 12}" y="{y + 16}" text-anchor="end">{_safe(bar.label)}</text>'
                     f'<rect x="{across(min(start, end)):.1f}" y="{y}" height="{row - 8}" rx="2" '
                     f'width="{width:.1f}" fill="var(--{colour})"/>'
                     f'<text x="{right + 14}" y="{y + 16}">{shown} {_safe(unit)}'
                     f'<tspan class="soft" fill="var(--soft)">{interval}</tspan></text></g>')
        if position + 1 < len(bars):
            drawn.append(f'<line x1="{across(end):.1f}" x2="{across(end):.1f}" y1="{y + row - 8}" y2="{y + row}"/>')
    return f'<svg viewBox="0 0 1040 {12 + row * len(bars)}" role="img">{"".join(drawn)}</svg>'


def _timeline(spans: Sequence[Span]) -> str:
    left, right, row = 130, 1030, 26
    rows = list(dict.fromkeys(span.row for span in spans))
    colours = _colours(span.cause for span in spans)
    end_s = max(span.start_s + span.duration_s for span in spans) or 1.0
    scale = (right - left) / end_s
    drawn = [f'<text x="{left - 10}" y="{18 + row * index}" text-anchor="end">{_safe(name)}</text>'
             for index, name in enumerate(rows)]
    for span in spans:
        x, width = left + span.start_s * scale, max(0.4, span.duration_s * scale)
        drawn.append(f'<rect x="{x:.2f}" y="{4 + row * rows.index(span.row)}" width="{width:.2f}" height="{row - 6}" '
                     f'fill="{colours[span.cause]}"><title>{_safe(span.cause)}: {span.duration_s * 1e3:,.3g} ms '
                     f"from {span.start_s * 1e3:,.4g} ms</title></rect>")
    height = 10 + row * len(rows)
    drawn.append(f'<text class="soft" x="{left}" y="{height + 14}">0</text><text class="soft" x="{right}" '
                 f'y="{height + 14}" text-anchor="end">{end_s * 1e3:,.4g} ms</text>')
    return f'<svg viewBox="0 0 1040 {height + 20}" role="img">{"".join(drawn)}</svg>{_legend(colours)}'


def _curves(curves: Sequence[Curve], axes: tuple[str, str]) -> str:
    """Lines over shared axes that begin at zero, with round marks."""
    left, right, top, bottom = 80, 1010, 12, 270
    reach = [max((max(column, default=0.0) for column in columns), default=0.0) or 1.0
             for columns in ([curve.x for curve in curves], [curve.y for curve in curves])]
    marks = [_marks(most) for most in reach]
    reach = [max(most, listed[-1]) for most, listed in zip(reach, marks, strict=True)]
    colours = _colours(curve.label for curve in curves)

    def at(x: float, y: float) -> str:
        return f"{left + (right - left) * x / reach[0]:.1f},{bottom - (bottom - top) * y / reach[1]:.1f}"

    drawn = []
    for mark in marks[1]:
        y = bottom - (bottom - top) * mark / reach[1]
        drawn.append(f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/><text class="soft" x="{left - 8}" '
                     f'y="{y + 4:.1f}" text-anchor="end">{significant(mark)}</text>')
    for mark in marks[0]:
        x = left + (right - left) * mark / reach[0]
        drawn.append(f'<text class="soft" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{significant(mark)}'
                     "</text>")
    for curve in curves:
        points = " ".join(at(x, y) for x, y in zip(curve.x, curve.y, strict=True))
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{colours[curve.label]}" stroke-width="2">'
                     f"<title>{_safe(curve.label)}</title></polyline>")
    drawn.append(f'<text class="soft" x="{right}" y="{bottom + 36}" text-anchor="end">{_safe(axes[0])}</text>'
                 f'<text class="soft" x="{left}" y="{top - 2}" text-anchor="start">{_safe(axes[1])}</text>')
    return f'<svg viewBox="0 -6 1040 {bottom + 50}" role="img">{"".join(drawn)}</svg>{_legend(colours)}'


def _marks(most: float) -> list[float]:
    """Four to eight round numbers from zero to at least `most`."""
    step = 10.0 ** math.floor(math.log10(most / 4.0))
    step *= next(factor for factor in (1, 2, 5, 10) if most / (step * factor) <= 8.0)
    return [step * number for number in range(math.ceil(most / step) + 1)]


def _stacks(stacks: Sequence[Stack]) -> str:
    left, right, row = 130, 900, 34
    colours = _colours(name for stack in stacks for name, _ in stack.parts)
    reach = max(max(stack.limit, sum(value for _, value in stack.parts)) for stack in stacks) or 1.0
    drawn = []
    for position, stack in enumerate(stacks):
        x, y = float(left), 6 + row * position
        drawn.append(f'<text x="{left - 10}" y="{y + 18}" text-anchor="end">{_safe(stack.label)}</text>')
        for name, value in stack.parts:
            width = (right - left) * value / reach
            drawn.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{row - 8}" fill="{colours[name]}">'
                         f"<title>{_safe(name)}: {value / 1e9:,.2f} GB</title></rect>")
            x += width
        total = sum(value for _, value in stack.parts)
        drawn.append(f'<text x="{right + 12}" y="{y + 18}">{total / 1e9:,.1f} GB</text>')
        if stack.limit:
            at = left + (right - left) * stack.limit / reach
            drawn.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y - 4}" y2="{y + row - 4}" '
                         f'style="stroke:var(--loss);stroke-width:2"><title>limit {stack.limit / 1e9:,.1f} GB</title>'
                         "</line>")
    return f'<svg viewBox="0 0 1040 {10 + row * len(stacks)}" role="img">{"".join(drawn)}</svg>{_legend(colours)}'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_safe(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{_safe(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _colours(names: Iterable[str]) -> dict[str, str]:
    return {name: _PALETTE[position % len(_PALETTE)] for position, name in enumerate(dict.fromkeys(names))}


def _legend(colours: dict[str, str]) -> str:
    keys = "".join(f'<span style="margin-right:1.1em;white-space:nowrap"><span style="display:inline-block;width:.8em;'
                   f'height:.8em;background:{colour};margin-right:.4em"></span>{_safe(name.replace("_", " "))}</span>'
                   for name, colour in colours.items())
    return f'<p style="font-size:13px">{keys}</p>'


def _safe(text: str) -> str:
    return html.escape(text, quote=True)
