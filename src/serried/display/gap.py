"""What a gap looks like: the sides, the waterfall, what is recoverable, what is physical, parity and next actions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from rich.console import Console

from serried.display.spec import Bar, Section, Span, Stack
from serried.display.terminal import table, waterfall_table
from serried.insight import Bar as LayerBar
from serried.insight import Interval, Side, Waterfall
from serried.units import significant

__all__ = ["gap_sections", "print_gap"]

_WORDS = {"schedule_and_overlap": "schedule & overlap"}
_FEW_WORDS = 60


def print_gap(answer: Waterfall, screen: Console) -> None:
    """The whole answer in the terminal, most important first."""
    screen.print(f"[bold]{answer.job}[/bold]")
    screen.print(headline(answer), highlight=False)
    screen.print()
    for title, header, rows in _tables(answer)[:1]:
        screen.print(table(title, header, rows))
        screen.print()
    screen.print(waterfall_table(f"Where the gap is, in {answer.unit_of_work} (less is faster)", _layer_bars(answer),
                                 unit="s", less_is_better=True))
    screen.print()
    screen.print(waterfall_table("What the fleet's present software has closed already, from plain software",
                                 _closed_bars(answer), unit="s", less_is_better=True))
    screen.print()
    screen.print(waterfall_table("What better software on the fleet's own silicon would recover",
                                 _recoverable_bars(answer), unit="s", less_is_better=True))
    screen.print()
    for title, header, rows in _tables(answer)[1:]:
        screen.print(table(title, header, rows))
        screen.print()
    for number, action in enumerate(answer.actions, 1):
        screen.print(f"[bold]{number}.[/bold] {action.words}  [green]{_percent(action.gain)}[/green] throughput")
    for note in answer.notes:
        screen.print(f"[dim]note: {note}[/dim]")


def headline(answer: Waterfall) -> str:
    """The gap in one sentence."""
    ratio = _exp(answer.gap_ln)
    recovered = _exp(answer.recoverable_ln)
    first = (f"{answer.rival.name} ({answer.rival.chip}) does {ratio.value:.2f}x the work per chip of "
             f"{answer.fleet.name} ({answer.fleet.chip}) [{ratio.low:.2f} … {ratio.high:.2f}]")
    return (f"{first}; better software on the same silicon could make the fleet {recovered.value:.2f}x as fast "
            f"[{recovered.low:.2f} … {recovered.high:.2f}].").replace("[", "(").replace("]", ")")


def gap_sections(answer: Waterfall) -> list[Section]:
    """The whole answer as the sections of a page."""
    tables = [Section(title=title, header=header, rows=rows) for title, header, rows in _tables(answer)]
    sides = (answer.fleet, answer.rival)
    spans = [span for side in sides for span in _spans(side)]
    memory = [Stack(label=side.chip, parts=[("in use", side.figures["memory_bytes"])],
                    limit=side.figures.get("memory_limit_bytes", 0.0))
              for side in sides if "memory_bytes" in side.figures]
    return [
        tables[0],
        Section(title="Where the gap is", text=f"{answer.unit_of_work}; less is faster. Every subset of the seven "
                "layers was simulated; each bar is its Shapley share, independent of order, with its 80 % interval.",
                bars=_layer_bars(answer), unit="s", less_is_better=True),
        Section(title="What the present software has closed already", bars=_closed_bars(answer), unit="s",
                less_is_better=True, text="From plain software (eager, unfused, nothing hidden, 16 bits, a layout by "
                "rule of thumb) to the stack as it stands."),
        Section(title="What software can recover on the fleet's own silicon", bars=_recoverable_bars(answer), unit="s",
                less_is_better=True,
                text="From the stack as it stands to perfect software: every kernel at its profile, everything fused, "
                     "hidden and captured, the best layout and format."),
        Section(title="Where the time goes", text="One unit of work by cause.", spans=spans),
        *([Section(title="Memory of the fullest chip", stacks=memory)] if memory else []),
        *tables[1:],
        Section(title="What to do next", header=("action", "layer", "expected gain"),
                rows=[(action.words, _word(action.layer), _percent(action.gain)) for action in answer.actions]),
    ]


def _layer_bars(answer: Waterfall) -> list[Bar]:
    return _chain(answer.fleet, answer.bars, Bar(label=f"{answer.rival.name} today", kind="level",
                                                 value=answer.rival.time_s.value))


def _recoverable_bars(answer: Waterfall) -> list[Bar]:
    perfect_s = answer.fleet.time_s.value - sum(bar.gap_s.value for bar in answer.recoverable)
    return _chain(answer.fleet, answer.recoverable, Bar(label="perfect software", kind="level", value=perfect_s))


def _closed_bars(answer: Waterfall) -> list[Bar]:
    """From plain software to the fleet as it stands."""
    plain_s = answer.fleet.time_s.value + sum(bar.gap_s.value for bar in answer.closed)
    start = Bar(label="plain software", kind="level", value=plain_s)
    end = Bar(label=f"{answer.fleet.name} today", kind="level", value=answer.fleet.time_s.value)
    return [start, *_steps(answer.closed, plain_s), end]


def _chain(fleet: Side, bars: Sequence[LayerBar], end: Bar) -> list[Bar]:
    start = Bar(label=f"{fleet.name} today", kind="level", value=fleet.time_s.value, low=fleet.time_s.low,
                high=fleet.time_s.high)
    return [start, *_steps(bars, fleet.time_s.value), end]


def _steps(bars: Sequence[LayerBar], scale_s: float) -> list[Bar]:
    """Layers as steps; a layer whose settings are the same on both ends is left to stand at zero."""
    steps = []
    for bar in bars:
        value, low, high = (_grounded(-each, scale_s) for each in (bar.gap_s.value, bar.gap_s.high, bar.gap_s.low))
        steps.append(Bar(label=_word(bar.layer), value=value, low=low, high=high, note=_change(bar)))
    return steps


def _grounded(value: float, scale: float) -> float:
    """Rounding noise of a sum of many simulations, as the zero that it is."""
    return value if abs(value) > 1e-9 * scale else 0.0


def _change(bar: LayerBar) -> str:
    """Only what differs between the two settings of a layer."""
    old, new = bar.from_setting.split(", "), bar.to_setting.split(", ")
    if old == new:
        return "the same"
    gone, come = [part for part in old if part not in new], [part for part in new if part not in old]
    names = [part.partition("=")[0] for part in gone]
    if all("=" in part for part in gone + come) and names == [part.partition("=")[0] for part in come]:
        return ", ".join(f"{name.replace('_', ' ')} {was.partition('=')[2]} → {now.partition('=')[2]}"
                         for name, was, now in zip(names, gone, come, strict=True))
    return f"{', '.join(gone) or 'default'} → {', '.join(come) or 'default'}"


def _tables(answer: Waterfall) -> list[tuple[str, Sequence[str], list[tuple[str, ...]]]]:
    sides = (answer.fleet, answer.rival)
    return [("The two sides as they stand", ("", "fleet", "rival"), [
        ("chips", *(f"{side.chip} x{side.chip_count}" for side in sides)),
        ("stack", *(_stack(side) for side in sides)),
        ("layout", *(_layout(side) for side in sides)),
        ("tokens/s", *(_range(side.tokens_per_s) for side in sides)),
        ("tokens/s per chip", *(_range(side.tokens_per_s_per_chip) for side in sides)),
        *((_figure_name(name), *(_figure(name, side.figures.get(name, math.nan)) for side in sides))
          for name in answer.fleet.figures),
        ("cost per million tokens", *(_money(side.cost.usd_per_million_tokens,
                                             f" ({side.cost.basis}, {side.cost.status})") for side in sides)),
        ("tokens per joule", *(_number(side.cost.tokens_per_j) for side in sides)),
        ("evidence", *(side.evidence_class for side in sides)),
    ]), ("What remains when both sides have perfect software: rival over fleet, per chip", ("cause", "factor"), [
        ("all", f"{math.exp(answer.physical.gap_ln):.2f}x"),
        ("compute", f"{math.exp(answer.physical.compute_ln):.2f}x"),
        ("memory", f"{math.exp(answer.physical.memory_ln):.2f}x"),
        ("fabric", f"{math.exp(answer.physical.fabric_ln):.2f}x"),
        ("scale", f"{math.exp(answer.physical.scale_ln):.2f}x"),
    ]), ("Parity, fleet over rival", ("what", "value"), [
        ("per chip", _range(answer.parity.per_chip)), ("whole fleet", _range(answer.parity.per_fleet)),
        ("per dollar", _number(answer.parity.per_usd)), ("per joule", _number(answer.parity.per_joule)),
        ("fleet chips to match the whole rival", _number(answer.parity.chips_for_parity)),
        ("break-even price of one fleet chip", _money(answer.parity.break_even_price_usd)),
        ("break-even rent of one fleet chip", _money(answer.parity.break_even_rent_usd_per_s * 3600.0, "/h")),
        *((("unknown", ", ".join(answer.parity.unknown)),) if answer.parity.unknown else ()),
    ])]


def _spans(side: Side) -> list[Span]:
    causes = [(name, seconds) for name, seconds in side.time_by_cause_s.items() if seconds > 0]
    ends_s = [0.0]
    for _, seconds in causes:
        ends_s.append(ends_s[-1] + seconds)
    return [Span(row=side.chip[:16], start_s=start, duration_s=end - start, cause=name)
            for (name, _), (start, end) in zip(causes, pairwise(ends_s), strict=True)]


def _word(layer: str) -> str:
    return _WORDS.get(layer, layer)


def _stack(side: Side) -> str:
    """The stack with where it comes from, when that can be said in a few words."""
    return f"{side.stack} ({side.stack_source})" if len(side.stack_source) <= _FEW_WORDS else side.stack


def _layout(side: Side) -> str:
    plain = {"tp", "pp", "cp", "ep", "replicas", "attention_dp", "micro_batch", "sharding", "virtual_stages"}
    parts = [f"{name}={value}" for name, value in side.layout.items()
             if (name in plain and value not in (0, 1)) or name in ("recompute", "captured", "tp")]
    return ", ".join([side.number_format, *parts])


def _exp(ln: Interval) -> Interval:
    return Interval(value=math.exp(ln.value), low=math.exp(ln.low), high=math.exp(ln.high))


def _range(interval: Interval) -> str:
    return f"{significant(interval.value, 4)}  ({significant(interval.low)} … {significant(interval.high)})"


def _percent(gain: Interval) -> str:
    """A gain in ln of throughput, in percent with its interval."""
    low, value, high = (100.0 * math.expm1(each) for each in (gain.low, gain.value, gain.high))
    return f"{value:+.0f} % ({low:+.0f} … {high:+.0f})"


def _number(value: float) -> str:
    return significant(value)


def _money(value: float, more: str = "") -> str:
    if not math.isfinite(value):
        return "unknown"
    return f"${value:,.0f}{more}" if abs(value) >= 1000 else f"${value:,.4g}{more}"


def _figure_name(name: str) -> str:
    words = name.replace("model_flop_per_s", "model FLOP/s").removesuffix("_s").removesuffix("_bytes").replace("_", " ")
    return words.replace("ttft", "TTFT").replace("tpot", "TPOT")


def _figure(name: str, value: float) -> str:
    if not math.isfinite(value):
        return "unknown"
    if name.startswith("model_flop_per_s"):
        return f"{value / 1e12:,.4g} TFLOP/s"
    if name.endswith("_s"):
        return f"{value:,.3f} s" if value >= 1 else f"{value * 1e3:,.4g} ms"
    return f"{value / 1e9:,.1f} GB" if name.endswith("_bytes") else f"{value:,.4g}"
