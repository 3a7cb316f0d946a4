"""What a diagnosis looks like: what explains the points best, what each layer's settings are worth, point by point."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.console import Console

from serried.display.terminal import table
from serried.insight import Diagnosis

__all__ = ["print_diagnosis"]

#: A layer is told by the points when its best setting is this much more probable than a guess.
_TOLD = 0.2
_SURE = 0.8
#: Beyond this error no explanation is one.
_UNEXPLAINED = 0.25
_SHOWN_SETTINGS = 3
_SKIPPED = 3


def print_diagnosis(found: Diagnosis, screen: Console, *, lead: str) -> None:
    """The most probable explanation in a sentence, then layers, then ranked explanations, then every point."""
    best = found.explanations[0]
    screen.print(lead, markup=False)
    screen.print(f"{len(found.points)} points against {found.combinations:,} combinations of layer settings; the best "
                 f"one is off by {math.expm1(best.rms_error_ln):.0%} (root mean square).", markup=False)
    if math.expm1(best.rms_error_ln) > _UNEXPLAINED:
        screen.print("No combination explains these points, so do not trust the ranking. What none of them varies: the "
                     "chip's figures, prompts served from a cache, what the benchmark counted.", style="yellow")
    screen.print()
    screen.print(_layers(found))
    screen.print()
    screen.print(_explanations(found))
    screen.print()
    screen.print(_points(found))
    for reason in found.skipped[:_SKIPPED]:
        screen.print(f"left out: {reason}", markup=False)
    if len(found.skipped) > _SKIPPED:
        screen.print(f"left out: {len(found.skipped) - _SKIPPED} more (all in --json)", markup=False)


def _layers(found: Diagnosis) -> object:
    rows = []
    for layer, marginal in found.marginals.items():
        ranked = sorted(marginal.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{setting} ({probability:.0%})" for setting, probability in ranked[:_SHOWN_SETTINGS])
        rows.append((layer, shown, _verdict(marginal)))
    made = table("What the points say of each layer (probability)", ("layer", "settings, most probable first", "told?"),
                 rows, left=3)
    made.columns[0].no_wrap = True
    return made


def _verdict(marginal: Mapping[str, float]) -> str:
    if len(marginal) < 2:
        return "given"
    likeliest = max(marginal.values())
    if likeliest >= _SURE:
        return "yes"
    return "leaning" if likeliest >= 1.0 / len(marginal) + _TOLD else "no: equal either way"


def _explanations(found: Diagnosis) -> object:
    first = found.explanations[0].settings
    rows = [("probability", *(f"{one.probability:.1%}" for one in found.explanations)),
            ("error (rms)", *(f"{math.expm1(one.rms_error_ln):.0%}" for one in found.explanations))]
    rows += [(layer, *(setting if not position or setting != first[layer] else "as 1" for position, setting in
                       enumerate(one.settings[layer] for one in found.explanations))) for layer in first]
    made = table("The most probable explanations, whole", ("layer", *map(str, range(1, len(found.explanations) + 1))),
                 rows)
    for column in made.columns[1:]:
        column.justify = "left"
    return made


def _points(found: Diagnosis) -> object:
    rows = []
    for position, point in enumerate(found.points):
        predicted = [one.predicted[position] for one in found.explanations]
        rows.append((point.label, point.metric.replace("_", " "), f"{point.value:,.4g} {point.unit}".strip(),
                     f"{predicted[0]:,.4g}", f"{predicted[0] / point.value - 1:+.0%}",
                     f"{min(predicted):,.4g} … {max(predicted):,.4g}"))
    return table("Point by point", ("point", "what", "measured", "predicted by 1", "off by", "by all shown"), rows,
                 left=2)
