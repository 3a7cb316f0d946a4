"""Rebuild the shipped kernel profiles from the shipped measurements: `python -m serried.calibration [PROFILE ...]`.

Deterministic: the same measurements give the same files.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from serried.calibration.profile_file import write_profile
from serried.compiler import profile_names, read_profile
from serried.silicon import read_chip

#: Modules with `calibrated(profile, chips) -> family -> variant -> (parameters, KernelFit)`, in order.
FITTERS = ("gemm", "moe", "attention")


def main(names: Sequence[str]) -> None:
    """Fit every family of the named profiles (all of them when none is named) and write them back."""
    shipped = profile_names()
    measured = [chip for name in shipped for chip in read_profile(name).chips]
    fitted_names = [name for name in shipped if read_profile(name).chips or "*" in read_profile(name).chip_families]
    for name in names or fitted_names:
        for fitter in FITTERS:
            profile = read_profile(name)
            module = f"serried.calibration.{fitter}"
            if importlib.util.find_spec(module) is None:
                continue
            calibrated = getattr(importlib.import_module(module), "calibrated", None)
            if calibrated is None:
                continue
            fitted = calibrated(profile, [read_chip(chip) for chip in profile.chips or measured])
            write_profile(Path(profile.file), fitted)
            for family, variants in fitted.items():
                for variant, (_, fit) in variants.items():
                    print(f"{name:10} {family:14} {variant:12} {fit.rows:6d} rows  median {fit.median_error:6.1%}  "
                          f"p90 {fit.p90_error:6.1%}  {fit.library} {fit.release}")


if __name__ == "__main__":
    main(sys.argv[1:])
