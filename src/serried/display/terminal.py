"""The terminal: tables and a waterfall drawn in characters."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from serried.display.spec import Bar, Stack
from serried.units import significant

__all__ = ["console", "stack_table", "table", "waterfall_table"]

_WIDTH = 32
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> Table:
    """A plain table; the first `left` columns are words, the rest are figures set flush right."""
    heading = Text(title, no_wrap=True, overflow="ignore") if title else None
    made = Table(title=heading, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    for position, name in enumerate(header):
        words = position < left or not name
        made.add_column(name, justify="left" if words else "right", overflow="fold", no_wrap=name == "" and left > 1)
    for row in rows:
        made.add_row(*row)
    return made


def waterfall_table(title: str, bars: Sequence[Bar], *, unit: str, less_is_better: bool = False,
                    words: tuple[str, str] = ("layer", "what changes")) -> Table:
    """A waterfall from level to level: steps start where the last bar ended; gains are green, losses red."""
    reach = max(_levels(bars), default=1.0) or 1.0
    interval_word = "80 % interval" if any(bar.low is not None for bar in bars) else ""
    made = table(title, (words[0], "", unit, interval_word, words[1]), (), left=2)
    made.columns[4].justify = "left"
    level = 0.0
    for bar in bars:
        start = 0.0 if bar.kind == "level" else level
        level = bar.value if bar.kind == "level" else level + bar.value
        colour = "cyan" if bar.kind == "level" else "green" if (bar.value < 0) == less_is_better else "red"
        drawn = Text(_segment(min(start, level) / reach, max(start, level) / reach), style=colour)
        sign = "" if bar.kind == "level" else "+" if bar.value >= 0 else "−"
        shown = f"{sign}{significant(abs(bar.value), 4)}" if bar.value or bar.kind == "level" else "0"
        told = bar.low is not None and bar.high is not None and (bar.low, bar.high) != (0.0, 0.0)
        interval = f"{significant(bar.low or 0.0)} … {significant(bar.high or 0.0)}" if told else ""
        made.add_row(Text(bar.label, style="bold" if bar.kind == "level" else ""), drawn, shown, interval, bar.note)
    return made


def stack_table(title: str, stacks: Sequence[Stack]) -> Table:
    """Stacked bars with the limit that holds them, one letter per part; the caption says which."""
    made = table(title, ("", "", "total", "limit"), (), left=2)
    letters = _letters([name for stack in stacks for name, _ in stack.parts])
    made.caption = Text(", ".join(f"{letter} {name.replace('_', ' ')}" for name, letter in letters.items()),
                        style="dim", no_wrap=True, overflow="ignore")
    made.caption_justify = "left"
    for stack in stacks:
        total = sum(value for _, value in stack.parts)
        reach = max(total, stack.limit) or 1.0
        drawn = "".join(letters[name] * round(_WIDTH * value / reach) for name, value in stack.parts)
        style = "red" if stack.limit and total > stack.limit else "green"
        made.add_row(stack.label, Text(drawn, style=style), f"{total / 1e9:.1f} GB",
                     f"{stack.limit / 1e9:.0f} GB" if stack.limit else "")
    return made


def _letters(names: Sequence[str]) -> dict[str, str]:
    """A letter of its own for every name: the first of its letters that is still free."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        free = (letter for letter in name.upper() if letter.isalpha() and letter not in found.values())
        found[name] = next(free, "?")
    return found


def _levels(bars: Sequence[Bar]) -> list[float]:
    found, level = [], 0.0
    for bar in bars:
        level = bar.value if bar.kind == "level" else level + bar.value
        found.append(level)
    return found


def _segment(start: float, end: float) -> str:
    """A bar from `start` to `end` (shares of the width): it begins on a cell and ends on an eighth of one."""
    first, last = round(max(0.0, start) * _WIDTH), min(1.0, max(0.0, end)) * _WIDTH
    eighths = max(0, round((last - first) * 8))
    return " " * min(first, _WIDTH - 1) + ("█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip() or "│")


def console() -> Console:
    """The console that people read: wide enough for a table even when the output is a file."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=118)
