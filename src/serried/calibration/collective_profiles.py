"""Rebuild the shipped collective profiles from the shipped measurements.

Which profile is fitted on which rows stands in `data/evidence/collective-fits.toml`; only rows marked `calibrate` are
read. `python -m serried.calibration.collective_profiles` runs it (about three minutes).
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serried.calibration.collectives import CollectiveFit, fit_collectives
from serried.calibration.nccl_log import read_nccl_log
from serried.catalogue import read_entry
from serried.catalogue.entry import DATA, read_toml
from serried.fabric import CollectiveProfile, read_collectives, read_fabric
from serried.fabric.observations import Observations, observe, read_columns
from serried.fabric.spec import PARAMETER_UNITS

__all__ = ["calibrate_on_logs", "profile_toml", "rebuild_collectives"]

_FILES = ("collectives_intra_node.csv.gz", "collectives.csv")


def rebuild_collectives(folder: Path | None = None, *, progress: Callable[[str], None] | None = None) -> list[
        tuple[str, CollectiveFit]]:
    """Fit every profile of the plan and write it as TOML into `folder` (default: the shipped tables).

    Returns the fits in the order of the plan. Deterministic: the same files give the same bytes.
    """
    folder = DATA / "collectives" if folder is None else folder
    plan = read_toml(DATA / "evidence" / "collective-fits.toml")["fit"]
    for step in plan:  # a profile must have a table before rows can name it
        if not (DATA / "collectives" / f"{step['profile']}.toml").exists():
            (DATA / "collectives" / f"{step['profile']}.toml").write_text(
                profile_toml(dataclasses.replace(read_collectives(step["start"]), name=step["profile"])))
    observed = [observe(read_columns(DATA / "measurements" / "network" / name), file=name) for name in _FILES]
    fitted: dict[str, CollectiveProfile] = {}
    fits = []
    for step in plan:
        seen = _joined([part.take(_wanted(part, step)) for part in observed])
        rows = _averaged(seen)
        start = fitted[step["start"]] if step["start"] in fitted else read_collectives(step["start"])
        if "with" in step:
            extra = read_entry("collectives", step["with"], PARAMETER_UNITS).figures
            start = dataclasses.replace(start, parameters={
                **start.parameters, **{name: figure.value for name, figure in extra.items()}})
        fabric = dataclasses.replace(read_fabric(step["fabrics"][0]), profile=start)
        free = [name for name in start.parameters if _matches(name, step["free"])
                and not _matches(name, step.get("held", ()))]
        source = f"fitted on {len(seen)} calibrate rows: {', '.join(sorted(set(seen.source)))}"
        fit = fit_collectives(rows, fabric, free=free, name=step["profile"], source=source,
                              starts=step.get("starts", 1))
        profile = dataclasses.replace(fit.profile, library=step["library"], network_evidence_class=(
            "same family" if step["rows"] == "inside" else fit.profile.evidence_class))
        fitted[step["profile"]] = profile
        fits.append((step["profile"], fit))
        (folder / f"{step['profile']}.toml").write_text(
            profile_toml(profile, title=step["title"], measured=set(free)), encoding="utf-8")
        if progress is not None:
            progress(f"{step['profile']} {step['rows']}: {len(seen)} rows, median error "
                     f"{fit.median_abs_error:.1%}, 80 % within {fit.spread:.1%}")
    return fits


def calibrate_on_logs(logs: Sequence[Path], fabric_name: str, *, name: str, prior_width: float = 0.5) -> CollectiveFit:
    """A user's own profile: that of the fabric called so, fitted on logs of nccl-tests run on it.

    Write `profile_toml(fit.profile)` to a file and name it in the fabric's table. The prior is narrow, because one log
    shows one collective on one number of ranks.
    """
    fabric = read_fabric(fabric_name)
    rows = _joined([read_nccl_log(path) for path in logs])
    return fit_collectives(rows, fabric, prior_width=prior_width, name=name,
                           source=f"fitted on {len(rows)} rows of {', '.join(path.name for path in logs)}")


def _wanted(part: Observations, step: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Calibrate rows of the step's fabrics, inside or between nodes, of the fabric's own library or of a custom one."""
    inside = np.array([degree <= (read_fabric(fabric).node_size if fabric else 0)
                       for degree, fabric in zip(part.degree, part.fabric, strict=True)], dtype=bool)
    library = step.get("observed_library", "")
    chosen = np.array([split == "calibrate" and skipped is None and fabric in step["fabrics"] and own == library
                       and ("sources" not in step or any(source.startswith(word) for word in step["sources"]))
                       for split, skipped, fabric, own, source in
                       zip(part.split, part.skipped, part.fabric, part.library, part.source, strict=True)], dtype=bool)
    reach: NDArray[np.bool_] = {"inside": inside, "between": ~inside, "any": inside | ~inside}[step["rows"]]
    return chosen & reach


def _averaged(rows: Observations) -> Observations:
    """Repeats of one question (releases of a library, runs) as one row each, at the geometric mean of their times.

    A sweep that was run on five releases must not outweigh one that was run on one.
    """
    repeats: dict[tuple[object, ...], list[int]] = {}
    for row in range(len(rows)):
        key = (rows.operation[row], rows.payload_bytes[row], rows.degree[row], rows.stride[row],
               bool(rows.switch_adds[row]), rows.ways[row])
        repeats.setdefault(key, []).append(row)
    first = rows.take(np.array([group[0] for group in repeats.values()], dtype=np.intp))
    time_s = np.array([np.exp(np.log(rows.time_s[group]).mean()) for group in repeats.values()])
    return dataclasses.replace(first, time_s=time_s)


def _joined(parts: Sequence[Observations]) -> Observations:
    columns: dict[str, Any] = {}
    for column in dataclasses.fields(Observations):
        pieces = [getattr(part, column.name) for part in parts]
        columns[column.name] = (np.concatenate(pieces) if isinstance(pieces[0], np.ndarray)
                                else [item for piece in pieces for item in piece])
    return Observations(**columns)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def profile_toml(profile: CollectiveProfile, *, title: str = "", measured: set[str] | None = None) -> str:
    """A profile as the text of its table; parameters in `measured` were fitted, the others taken over."""
    facts = {"library": profile.library, "evidence_class": profile.evidence_class,
             "network_evidence_class": profile.network_evidence_class, "source": profile.source, "notes": title}
    lines = ['schema = "serried/collective/1"', f'name = "{profile.name}"', "", "[facts]"]
    lines += [f'{name} = "{text}"' for name, text in facts.items() if text]
    lines += [f"spread = {profile.spread:.4f}", "", "[figures]"]
    for name in sorted(profile.parameters):
        unit = PARAMETER_UNITS[name.partition(".")[0]]
        fitted = measured is None or name in measured
        status, source = ("measured", "fitted, see source above") if fitted else ("estimated", "taken over")
        shown = f"{profile.parameters[name]:.6g}" + ("" if unit == "1" else f" {unit}")
        lines.append(f'"{name}" = {{ value = "{shown}", status = "{status}", source = "{source}" }}')
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    rebuild_collectives(progress=lambda line: print(line, flush=True))
