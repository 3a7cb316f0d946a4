"""Pictures of a fleet for a page: switches as tiles, and the fleet hour by hour as lines."""

from __future__ import annotations

import html
from collections.abc import Sequence

from serried.display.spec import Line, Tiles

__all__ = ["lines_svg", "tiles_svg"]

_ACROSS, _STEP, _TOP = 64, 16, 24
_COLOURS = ("var(--level)", "var(--loss)", "var(--gain)", "#e0a03a")


def tiles_svg(groups: Sequence[Tiles]) -> str:
    """One square a switch: the more it works, the fuller its colour; the more it was down, the redder its frame."""
    drawn, y = [], 0
    for group in groups:
        drawn.append(f'<text x="0" y="{y + 15}">{html.escape(group.label)}</text>')
        y += _TOP
        for place, (value, down) in enumerate(zip(group.values, group.down, strict=True)):
            x, row = place % _ACROSS * _STEP, y + place // _ACROSS * _STEP
            frame = f' stroke="var(--loss)" stroke-width="2" stroke-opacity="{min(down * 10, 1):.2g}"' if down else ""
            drawn.append(f'<rect x="{x}" y="{row}" width="14" height="14" fill="var(--level)" '
                         f'fill-opacity="{max(value, 0.04):.2f}"{frame}><title>{place}: works {value:.0%}, down '
                         f"{down:.1%}</title></rect>")
        y += -(-len(group.values) // _ACROSS) * _STEP + 8
    return f'<svg viewBox="0 0 1040 {y + 4}" role="img">{"".join(drawn)}</svg>'


def lines_svg(lines: Sequence[Line], *, across: str) -> str:
    """Shares from 0 to 100 % over time."""
    left, right, height = 60, 1030, 180
    drawn = [f'<text class="soft" x="{left - 8}" y="{12 + height * (1 - share)}" text-anchor="end">{share:.0%}</text>'
             f'<line x1="{left}" x2="{right}" y1="{8 + height * (1 - share)}" y2="{8 + height * (1 - share)}"/>'
             for share in (0.0, 0.5, 1.0)]
    keys = []
    for line, colour in zip(lines, _COLOURS, strict=False):
        last = max(len(line.shares) - 1, 1)
        points = " ".join(f"{left + (right - left) * place / last:.1f},{8 + height * (1 - share):.1f}"
                          for place, share in enumerate(line.shares))
        drawn.append(f'<polyline points="{points}" fill="none" style="stroke:{colour};stroke-width:1.5"/>')
        keys.append(f'<span style="color:{colour};margin-right:1.2em">{html.escape(line.label)}</span>')
    drawn.append(f'<text class="soft" x="{right}" y="{height + 26}" text-anchor="end">{html.escape(across)}</text>')
    return (f'<svg viewBox="0 0 1040 {height + 32}" role="img">{"".join(drawn)}</svg>'
            f'<p style="font-size:13px">{"".join(keys)}</p>')
