"""Nouns of the compiler: a kernel profile and the parameters it gathers.

A parameter is dimensionless or in seconds, never in flop/s or bytes/s: the chip gives peaks, bandwidths and counts, the
profile says what the library makes of them, and so another chip of the family can inherit it with its own figures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any

from serried.errors import BadInput

__all__ = ["FORMAT_STAND_INS", "KernelFit", "KernelProfile", "parameter"]

#: Which measured recipe speaks for one that a profile does not have, nearest first.
FORMAT_STAND_INS: Mapping[str, tuple[str, ...]] = {
    "bf16": (), "fp16": ("bf16",), "tf32": ("bf16",), "fp32": ("bf16",),
    "fp8": ("fp8-block", "bf16"), "fp8-block": ("fp8", "bf16"), "mxfp8": ("fp8", "fp8-block", "bf16"),
    "nvfp4": ("fp8", "fp8-block", "bf16"), "int8": ("fp8", "fp8-block", "bf16"),
    "int8-weight": ("bf16",), "int4-weight": ("int8-weight", "bf16"),
    "fp8-cache": ("bf16",), "latent-fp8-cache": ("latent-bf16", "fp8-cache", "bf16"),
    "latent-bf16": ("bf16",), "latent-fp16": ("latent-bf16", "bf16"), "latent-fp8": ("latent-bf16", "fp8", "bf16"),
    "latent-tf32": ("latent-bf16", "bf16"), "latent-fp32": ("latent-bf16", "bf16"),
    "latent-int8": ("latent-fp8", "latent-bf16", "fp8", "bf16"), "latent-nvfp4": ("latent-fp8", "fp8", "bf16"),
    "latent-fp8-block": ("latent-fp8", "fp8", "bf16"), "latent-mxfp8": ("latent-fp8", "fp8", "bf16"),
}


def parameter(*, unit: str, low: float, high: float, description: str, default: Any = MISSING) -> Any:
    """A field of a parameter dataclass: unit ("1" or "s"), the range a fit may search, and what it means."""
    metadata = {"unit": unit, "low": low, "high": high, "description": description}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFit:
    """Where the parameters of one kernel family and variant come from.

    library, release: whose kernels. rows: calibrate rows behind the fit. median_error, p90_error: |ln| residuals on
    those rows, as fractions (validate errors are what `serried evidence` recomputes). source: who measured.
    casts: variant of the `quantise` family whose time the measured rows contain, "" = none.
    """

    library: str = ""
    release: str = ""
    rows: int = 0
    median_error: float = 0.0
    p90_error: float = 0.0
    source: str = ""
    casts: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelProfile:
    """The calibrated parameters of the kernel libraries on one chip.

    families: kernel family ("gemm", "attention", ...) to variant (a recipe of FORMATS, or a name of the family's own)
    to its parameter dataclass. fits: the same keys to provenance.
    chips, chip_families: names this profile speaks for; "*" is every family.
    evidence_class: how near the chip is to what was measured. spread: half-width of an 80 % interval, as a fraction,
    of a kernel time from this profile on this chip; family_spread: what it becomes on another chip of the family.
    """

    name: str
    file: str
    chips: tuple[str, ...]
    chip_families: tuple[str, ...]
    families: Mapping[str, Mapping[str, Any]]
    fits: Mapping[str, Mapping[str, KernelFit]]
    evidence_class: str = "kernel-calibrated chip"
    spread: float = 0.1
    family_spread: float = 0.25

    def parameters(self, family: str, variant: str) -> Any:
        """Parameters of a kernel family, for `variant` or the nearest variant measured; BadInput when there is none."""
        variants = self.families.get(family, {})
        for name in (variant, *FORMAT_STAND_INS.get(variant, ())):
            if name in variants:
                return variants[name]
        raise BadInput(file=self.file, field=f"{family}.{variant}", value=None,
                       expected=f"parameters of {family} kernels for {variant}",
                       remedy=f"Known: {', '.join(variants) or 'none'}. Calibrate the profile with measurements of it.")

    def fit(self, family: str, variant: str) -> KernelFit:
        """Where `parameters(family, variant)` come from."""
        variants = self.families.get(family, {})
        name = next((name for name in (variant, *FORMAT_STAND_INS.get(variant, ())) if name in variants), variant)
        return self.fits.get(family, {}).get(name, KernelFit())

    def with_class(self, evidence_class: str, spread: float) -> KernelProfile:
        """The same parameters, speaking for a chip that is further from what was measured."""
        return dataclasses.replace(self, evidence_class=evidence_class, spread=spread)
