"""Nouns of silicon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from serried.catalogue import Entry, Figure, read_entry
from serried.errors import BadInput, MissingFigure
from serried.silicon.legality import refuse_illegal

__all__ = ["CHIP_FIGURES", "NUMBER_FORMATS", "Chip", "read_chip"]

#: Formats of the matrix engines. Training recipes (mxfp8, nvfp4, ...) name one of these plus their quantise kernels.
NUMBER_FORMATS = ("fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp4")

#: Every figure a chip file may give: base unit. `matrix_peak.<format>` is dense, per chip. `sustained_*`: what public
#: measurements of the chip reach, for chips without a kernel profile of their own.
CHIP_FIGURES: Mapping[str, str] = {
    "matrix_peak": "flop/s", "sustained_matrix": "flop/s", "vector_peak": "flop/s", "core_count": "1", "clock": "Hz",
    "scratchpad_per_core": "bytes", "cache": "bytes", "cache_bandwidth": "bytes/s",
    "hbm_capacity": "bytes", "hbm_bandwidth": "bytes/s", "sustained_bandwidth": "bytes/s",
    "scaleup_bandwidth": "bytes/s", "scaleup_domain": "1", "nic_bandwidth": "bytes/s", "host_bandwidth": "bytes/s",
    "board_power": "W", "idle_power": "W", "price": "usd", "rent": "usd/s", "launch": "s",
}

#: The figures that decide how long a kernel takes.
KERNEL_FIGURES = frozenset({"matrix_peak", "vector_peak", "core_count", "clock", "hbm_bandwidth"})

#: Figures that name the format of the matrix engines.
_BY_FORMAT = ("matrix_peak", "sustained_matrix")
_WORDS = ("title", "vendor", "family", "fabric", "notes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """One accelerator as data. Numbers live in `figures`; `need` and `get` read them in base units.

    name: canonical name, equal to the stem of the shipped file. title: the name for people.
    vendor: plain words.
    family: the kernel-profile family it inherits from. Rule: chips are of one family when the same compiled kernels
    run on all of them with the same tile shapes, so a board that differs only in memory, links, power or the number
    of enabled cores stays in its family, and a new matrix-unit shape or instruction set opens a new one.
    fabric: name of the fabric that a bare `--fleet CHIP:COUNT` stands on.
    year: first volume shipment, 0 when unknown.
    """

    name: str
    vendor: str
    family: str
    fabric: str
    year: int
    file: str
    figures: Mapping[str, Figure] = field(repr=False)
    aliases: tuple[str, ...] = ()
    title: str = ""
    notes: str = ""

    def get(self, figure: str) -> float | None:
        """The figure in its base unit, or None when it is unknown."""
        found = self.figures.get(figure)
        return None if found is None else found.value

    def need(self, figure: str) -> float:
        """The figure in its base unit; MissingFigure says which one is unknown and how to give it."""
        value = self.get(figure)
        if value is None:
            unit = CHIP_FIGURES[figure.partition(".")[0]]
            raise MissingFigure(
                owner=self.name, file=self.file, field=f"figures.{figure}",
                remedy=f'Copy the file, add "{figure}" = {{ value = "<number> {unit}", status = "assumed", source = '
                       f'"<yours>" }} under [figures], and give the path of the copy as the chip.')
        return value

    def matrix_peak_flop_per_s(self, number_format: str) -> float:
        """Dense peak of the matrix engines in `number_format`, flop/s. BadInput when the chip lacks the format."""
        value = self.get(f"matrix_peak.{number_format}")
        if value is None:
            has = [name for name in NUMBER_FORMATS if f"matrix_peak.{name}" in self.figures]
            if not has:
                return self.need(f"matrix_peak.{number_format}")
            raise BadInput(field="number format", value=number_format,
                           expected=f"one that {self.name} has: {', '.join(has)}",
                           remedy=f"Choose another, or add matrix_peak.{number_format} to a copy of the chip file.")
        return value

    @property
    def number_formats(self) -> tuple[str, ...]:
        """The formats the matrix engines are known to have."""
        return tuple(name for name in NUMBER_FORMATS if f"matrix_peak.{name}" in self.figures)

    @property
    def status_spread(self) -> float:
        """Largest spread among the figures that a kernel time reads, as a fraction; 0 when all are firm.

        Prices, power and links have spreads of their own and do not blur the time of a kernel.
        """
        return max((figure.spread for name, figure in self.figures.items()
                    if name.partition(".")[0] in KERNEL_FIGURES), default=0.0)


def read_chip(name_or_path: str) -> Chip:
    """The chip called so in the catalogue (any case, any alias), or the chip file at that path."""
    return chip_of(read_entry("chips", name_or_path, CHIP_FIGURES))


def chip_of(entry: Entry) -> Chip:
    """A catalogue entry as a Chip; BadInput when a fact, a table or a figure is not one that a chip has."""
    if entry.tables:
        key, value = next(iter(entry.tables.items()))
        raise BadInput(file=entry.file, field=key, value=value, expected="[facts] and [figures], nothing else",
                       remedy="Remove it or correct its name.")
    for key, value in entry.facts.items():
        if key not in _WORDS and key != "year":
            raise BadInput(file=entry.file, field=f"facts.{key}", value=value,
                           expected=f"one of {', '.join(_WORDS)}, year", remedy="Remove it or correct its name.")
        if key in _WORDS and not isinstance(value, str):
            raise BadInput(file=entry.file, field=f"facts.{key}", value=value, expected="a text",
                           remedy=f'Write {key} = "...".')
    for name in entry.figures:
        family, _, number_format = name.partition(".")
        if (family in _BY_FORMAT) != bool(number_format) or (number_format and number_format not in NUMBER_FORMATS):
            raise BadInput(file=entry.file, field=f"figures.{name}", value=name,
                           expected="matrix_peak or sustained_matrix, then .<format> of "
                                    f"{', '.join(NUMBER_FORMATS)}",
                           remedy='Write for example "matrix_peak.bf16" = { ... }.')
    refuse_illegal(entry.figures, entry.file)
    return Chip(name=entry.name, year=_year(entry), file=entry.file, figures=entry.figures, aliases=entry.aliases,
                **{key: entry.facts.get(key, "") for key in _WORDS})


def _year(entry: Entry) -> int:
    year = entry.facts.get("year", 0)
    if not isinstance(year, int) or isinstance(year, bool) or not (year == 0 or 1990 <= year <= 2100):
        raise BadInput(file=entry.file, field="facts.year", value=year, expected="a year from 1990, or 0 when unknown",
                       remedy="Write for example year = 2026.")
    return year
