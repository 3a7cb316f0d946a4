"""Fit a user's own measurements: kernels of a chip, collectives of a fabric.

Every fit starts from what serried would use without it (the family's profile, the fabric's library) and is drawn to
it, so a few rows move what they can tell and leave the rest. Nothing is read from the shipped measurements.

Axes: R = measured row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from serried.calibration.attention import fit_attention
from serried.calibration.collective_profiles import profile_toml
from serried.calibration.collectives import fit_collectives, predicted_s
from serried.calibration.gemm import FITTED, GemmFit, GemmRows, fit_gemm, read_gemm_rows
from serried.calibration.nccl_log import read_nccl_log
from serried.calibration.profile_file import profile_text
from serried.catalogue.entry import fold, read_toml
from serried.catalogue.measurements import kernel_split, recognise, typed_columns
from serried.compiler import (
    ENGINE_FORMAT,
    FAMILIES,
    KernelFit,
    KernelProfile,
    gemm_time_s,
    profile_for,
    quantise_time_s,
)
from serried.compiler.attention_cases import attention_cases, case_time_s
from serried.errors import BadInput
from serried.fabric import Fabric
from serried.fabric.observations import Observations
from serried.fabric.spec import PARAMETER_UNITS
from serried.silicon import Chip
from serried.workload import Floats

__all__ = ["LEAST_ATTENTION_ROWS", "LEAST_ROWS", "Moved", "OwnFit", "fit_own_attention", "fit_own_collectives",
           "fit_own_gemm", "own_profile_text"]

#: Fewer rows than this cannot tell a slow kernel from a noisy clock.
LEAST_ROWS = 8
#: An attention kernel has tiles to choose besides.
LEAST_ATTENTION_ROWS = 20
#: Rows and held-out rows from which the error on unseen shapes is worth a second fit.
_HOLD_OUT_ROWS = 60
_HELD_LEAST = 15
_EIGHTY = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """One parameter before and after; unit "1" or "s"; spread is the half-width of its 80 % interval, 0 = not told."""

    name: str
    unit: str
    description: str
    before: float
    after: float
    spread: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFit:
    """What one fit made of a user's rows.

    subject: what was fitted, e.g. "gemm.bf16". start: what it started from. labels, predicted_s, measured_s: over R,
    after the fit; before_s: before it. unseen_ln: ln(predicted / measured) of rows under a fit that has not seen them,
    empty where there were too few to hold any out. skipped: rows left out, with the reason. table: the parameters as a
    profile keeps them.
    """

    subject: str
    start: str
    labels: Sequence[str]
    before_s: Floats
    predicted_s: Floats
    measured_s: Floats
    moved: Sequence[Moved]
    unseen_ln: Floats = field(default_factory=lambda: np.empty(0))
    skipped: Sequence[str] = ()
    table: tuple[Any, KernelFit] | None = None

    @property
    def residual_ln(self) -> Floats:
        """ln(predicted / measured) over R after the fit."""
        return np.asarray(np.log(self.predicted_s / self.measured_s))

    @property
    def spread(self) -> float:
        """Half-width that holds four rows in five, as a fraction: of unseen rows where there are any."""
        known = self.unseen_ln if len(self.unseen_ln) else self.residual_ln
        return float(np.expm1(np.quantile(np.abs(known), _EIGHTY)))


def fit_own_gemm(path: Path, chip: Chip, base: KernelProfile, *, library: str = "") -> dict[str, OwnFit]:
    """Recipe to fit, from a CSV of m, n, k, dtype and a time. BadInput for a bad cell and for too few rows."""
    found: dict[str, OwnFit] = {}
    by_recipe = read_gemm_rows(path, chip=chip, library=library)
    if not by_recipe:
        raise BadInput(file=str(path), field="chip", value="no row", expected=f"matrix products of {chip.name}",
                       remedy="Name the chip that was measured, or leave the column `chip` out.")
    for recipe, rows in by_recipe.items():
        if len(rows) < LEAST_ROWS:
            raise BadInput(file=str(path), field=f"rows of {recipe}", value=len(rows),
                           expected=f"at least {LEAST_ROWS} shapes to fit", remedy="Measure more shapes, or remove "
                           "these rows.")
        _refuse_above_peak(rows, str(path))
        found[recipe] = _fit_gemm(recipe, rows, base, library)
    return found


def _refuse_above_peak(rows: GemmRows, file: str) -> None:
    """BadInput, with the arithmetic, for a product faster than the engines of its format can be."""
    peak = rows.chip.matrix_peak_flop_per_s(ENGINE_FORMAT[rows.number_format])
    flop = 2.0 * rows.m * rows.n * rows.k
    worst = int(np.argmax(flop / rows.time_s))
    if flop[worst] / rows.time_s[worst] > peak:
        raise BadInput(
            file=file, field=f"m={rows.m[worst]:.0f} n={rows.n[worst]:.0f} k={rows.k[worst]:.0f} {rows.number_format}",
            value=f"{rows.time_s[worst] * 1e6:.4g} us", expected=f"a rate of at most the {peak / 1e12:.4g} TFLOP/s of "
            f"{rows.chip.name}", remedy=f"{flop[worst] / 1e9:.4g} GFLOP in that time are "
            f"{flop[worst] / rows.time_s[worst] / 1e12:.4g} TFLOP/s: check the chip, the unit (microseconds) and that "
            "the kernel had ended.")


def _fit_gemm(recipe: str, rows: GemmRows, base: KernelProfile, library: str) -> OwnFit:
    start, told = base.parameters("gemm", recipe), base.fit("gemm", recipe)
    casts = base.parameters("quantise", told.casts) if library and told.library == library and told.casts else None
    free = tuple(name for name in FITTED if name != "slice_s" or start.slice_limit > 1)

    def fit(part: GemmRows) -> GemmFit:
        return fit_gemm([part], start=start, casts=casts, fitted=free, fitted_casts=())

    held = np.array([kernel_split(f"{n:.0f},{k:.0f}") == "validate" for n, k in zip(rows.n, rows.k, strict=True)])
    unseen = np.empty(0)
    if len(rows) >= _HOLD_OUT_ROWS and _HELD_LEAST <= held.sum() <= len(rows) - _HELD_LEAST:
        half = fit(_gemm_part(rows, ~held)).parameters
        unseen = _gemm_residuals(_gemm_part(rows, held), half, casts)
    fitted = fit(rows)
    before_s = rows.time_s * np.exp(_gemm_residuals(rows, start, casts))
    return OwnFit(
        subject=f"gemm.{recipe}", start=f"{base.name} ({base.evidence_class})", before_s=before_s,
        predicted_s=rows.time_s * np.exp(fitted.residuals), measured_s=rows.time_s, unseen_ln=unseen,
        labels=[f"m={m:.0f} n={n:.0f} k={k:.0f}" for m, n, k in zip(rows.m, rows.n, rows.k, strict=True)],
        moved=_moved("gemm", start, fitted.parameters, free),
        table=(fitted.parameters, fitted.kernel_fit(library=library or "own", source="own measurements",
                                                    casts=told.casts if casts is not None else "")))


def _gemm_part(rows: GemmRows, chosen: Any) -> GemmRows:
    return dataclasses.replace(rows, **{name: getattr(rows, name)[chosen] for name in ("m", "n", "k", "time_s")})


def _gemm_residuals(rows: GemmRows, parameters: Any, casts: Any) -> Floats:
    time_s = gemm_time_s(rows.m, rows.n, rows.k, chip=rows.chip, parameters=parameters,
                         number_format=rows.number_format)
    if casts is not None:
        time_s = time_s + quantise_time_s(rows.m, rows.k, chip=rows.chip, parameters=casts,
                                          number_format=rows.number_format)
    return np.asarray(np.log(time_s / rows.time_s))


def fit_own_attention(path: Path, chip: Chip, base: KernelProfile, *, library: str = "") -> dict[tuple[str, str],
                                                                                             OwnFit]:
    """(family, variant) to fit, from a CSV with the columns of a shipped attention table and times in `time_us`."""
    import polars as pl

    text = _read_text(path)
    if "chip" not in text.columns:
        text = text.with_columns(pl.lit(chip.name).alias("chip"))
    table = recognise(text.columns, file=str(path))
    if table not in ("attention_context", "attention_generation", "mla"):
        raise BadInput(file=str(path), field="header", value=f"the columns of {table}",
                       expected="the columns of a shipped attention table", remedy="Give such a file as --attention.")
    if "phase" in text.columns:   # backward is a kernel of its own (own_memory.fit_own_backward)
        text = text.filter(pl.col("phase").fill_null("") != "backward")
    frame, reasons = typed_columns(text, table, file=str(path))
    names = {fold(name) for name in (chip.name, *chip.aliases)}
    skipped = [f"row {row + 2}: {reason}" for row, reason in enumerate(reasons) if reason]
    frame = frame.filter([not reason and fold(name or "") in names
                          for reason, name in zip(reasons, frame["chip"], strict=True)])
    found: dict[tuple[str, str], OwnFit] = {}
    cases = attention_cases(frame)
    for _, family, variant, rows in cases.blocks() if frame.height else []:
        if len(rows) < LEAST_ATTENTION_ROWS:
            skipped.append(f"{family}.{variant}: {len(rows)} rows, fewer than {LEAST_ATTENTION_ROWS}")
            continue
        fit = fit_attention(frame[rows], chip, library or None, holdout=False)[0]
        start = base.parameters(family, variant)
        shape = cases.shape_at(rows[fit.rows])
        found[family, variant] = OwnFit(
            subject=f"{family}.{variant}", start=f"{base.name} ({base.evidence_class})", skipped=skipped,
            before_s=case_time_s(shape, family, variant, chip=chip, parameters=start), predicted_s=fit.predicted_s,
            measured_s=fit.measured_s, moved=_moved(family, start, fit.parameters, None),
            labels=[f"{batch:.0f} x {new:.0f} tokens on {context:.0f}, {heads:.0f} heads" for batch, new, context, heads
                    in zip(shape.sequences, shape.query_tokens, shape.context_tokens, shape.heads, strict=True)],
            table=(fit.parameters, dataclasses.replace(fit.fit, library=library or "own", source="own measurements")))
    if not found:
        raise BadInput(
            file=str(path), field="rows", value=0,
            expected=f"at least {LEAST_ATTENTION_ROWS} rows of one attention kernel of {chip.name}, with times",
            remedy=skipped[-1] if skipped else "Name the chip that was measured, or leave `chip` out.")
    return found


def _read_text(path: Path) -> Any:
    import polars as pl

    try:
        frame = pl.read_csv(path, infer_schema=False)
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise BadInput(file=str(path), field="file", value=path.name, expected="a CSV with a header",
                       remedy=(str(error).splitlines() or ["Check the file."])[0]) from None
    return frame


def _moved(family: str, before: Any, after: Any, names: Sequence[str] | None) -> list[Moved]:
    """Parameters that a fit may move, with what they were: `names`, or every number that changed."""
    found = []
    for column in dataclasses.fields(FAMILIES[family]):
        old, new = getattr(before, column.name), getattr(after, column.name)
        if isinstance(new, float) and (column.name in names if names is not None else old != new):
            found.append(Moved(name=column.name, before=float(old), after=new, unit=column.metadata.get("unit", "1"),
                               description=column.metadata.get("description", "")))
    return found


def own_profile_text(name: str, chip: Chip, fits: Sequence[OwnFit]) -> str:
    """A kernel profile for `chip`: the family's, with what was fitted in its place.

    With matrix products fitted it speaks for the chip itself; without them, as a profile of its family.
    """
    base = profile_for(chip)
    raw = read_toml(Path(base.file))
    products = [fit for fit in fits if fit.subject.startswith("gemm.")]
    spread = max((fit.spread for fit in products), default=base.spread)
    raw |= {"name": name, "facts": {
        "chips": [chip.name] if products else [], "chip_families": [chip.family], "spread": round(max(spread, 0.02), 4),
        "spread_family": round(max(base.family_spread, spread), 4),
        "source": f"own measurements, starting from {base.name}"}}
    for fit in fits:
        assert fit.table is not None, "a kernel fit keeps its parameters"
        family, variant = fit.subject.split(".", 1)
        told = {key: value for key, value in dataclasses.asdict(fit.table[1]).items() if value != ""}
        raw.setdefault(family, {})[variant] = dataclasses.asdict(fit.table[0]) | {"fit": told}
    return profile_text(raw, head=f"# Made by `serried calibrate` for {chip.name}; what was not measured is that of "
                                  f"{base.name}.\n")


def fit_own_collectives(paths: Sequence[Path], fabric: Fabric, name: str) -> tuple[OwnFit, str]:
    """The fabric's collective library fitted on logs of nccl-tests, and its profile as TOML."""
    logs = [read_nccl_log(path) for path in paths]
    rows = _joined(logs)
    if len(rows) < LEAST_ROWS:
        raise BadInput(file=str(paths[0]), field="rows", value=len(rows), expected=f"at least {LEAST_ROWS} rows to fit",
                       remedy="Measure more message lengths, e.g. all_reduce_perf -b 1K -e 1G -f 2.")
    _refuse_too_many_ranks(rows, fabric, str(paths[0]))
    before_s = predicted_s(rows, fabric)
    fit = fit_collectives(rows, fabric, name=name, source=f"own logs: {', '.join(path.name for path in paths)}")
    inside = rows.degree <= (fabric.node_size or np.inf)
    calibrated, base = fit.profile.evidence_class, fabric.profile
    profile = dataclasses.replace(
        fit.profile, evidence_class=calibrated if inside.any() else base.evidence_class,
        network_evidence_class=calibrated if (~inside).any() else base.network_evidence_class)
    changed = {key for key, value in profile.parameters.items()
               if abs(np.log(value / base.parameters[key])) > 0.01}
    moved = [Moved(name=key, unit=PARAMETER_UNITS[key.partition(".")[0]], before=base.parameters[key],
                   after=profile.parameters[key], description=_collective_words(key)) for key in sorted(changed)]
    labels = [f"{operation} of {payload:,.0f} B on {degree:.0f}" for operation, payload, degree in
              zip(rows.operation, rows.payload_bytes, rows.degree, strict=True)]
    own = OwnFit(subject=f"collectives on {fabric.name}", start=base.name, labels=labels, before_s=before_s,
                 predicted_s=fit.predicted_s, measured_s=fit.measured_s, moved=moved)
    return own, profile_toml(profile, title=f"{base.library} on {fabric.name}, own logs", measured=changed)


def _refuse_too_many_ranks(rows: Observations, fabric: Fabric, file: str) -> None:
    most = fabric.tiers[-1].group_size
    if most and rows.degree.max() > most:
        raise BadInput(file=file, field="ranks", value=int(rows.degree.max()), expected=f"at most the {most} chips of "
                       f"{fabric.name}", remedy="Name the fabric that was measured with --fabric.")


def _joined(parts: Sequence[Observations]) -> Observations:
    columns: dict[str, Any] = {}
    for column in dataclasses.fields(Observations):
        pieces = [getattr(part, column.name) for part in parts]
        columns[column.name] = (np.concatenate(pieces) if isinstance(pieces[0], np.ndarray)
                                else [item for piece in pieces for item in piece])
    return Observations(**columns)


_FAMILY_WORDS: Mapping[str, str] = {
    "launch": "before the first byte moves", "step": "software cost of one hop inside the node",
    "hop": "software cost of one hop between nodes", "ratio": "bandwidth reached over the tier's",
    "network": "bandwidth reached between nodes over the tier's", "pair": "bandwidth of one pair over the tier's",
    "peer": "cost of each further peer", "floor": "host time of an eager call", "exponent": "how steps and bytes add",
    "fill": "cost of filling a pipeline of chunks, in steps", "lockstep": "exponent of a ring that crosses nodes",
    "choice": "what the library believes of its own time", "local": "rate of a rank's own copy over the tier's",
    "scale": "growth of a hop with each doubling of the nodes", "maximum": "largest payload that uses it",
    "minimum": "smallest group that uses it", "stolen": "share of compute taken",
}


def _collective_words(parameter: str) -> str:
    family, _, rest = parameter.partition(".")
    return f"{_FAMILY_WORDS.get(family, family)}{f' ({rest})' if rest else ''}"
