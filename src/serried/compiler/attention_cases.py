"""Measured attention kernels as columns: what a row of a kernel table asks of a chip, and in which variant.

Three tables are understood, by their columns: attention of new tokens (context), decode (generation: one new token
against `step` cached ones), and latent attention (MLA). Chips, libraries and formats are text of the file.

A shape family is `validate` when zlib.crc32(key) % 2 == 1, with the key
"num_heads,num_key_value_heads,head_dim,window_size", or "num_heads,tp_size" for latent attention; fits see the others.

Axes: C = case, one entry per row.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from serried.compiler.attention import attention_time_s
from serried.compiler.decode import decode_time_s
from serried.compiler.shape import AttentionShape, attention_shape
from serried.silicon.spec import Chip
from serried.workload.spec import Floats

if TYPE_CHECKING:
    import polars as pl

__all__ = ["VARIANTS", "AttentionCases", "CaseVariant", "attention_cases", "case_time_s"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseVariant:
    """How a variant of a kernel family runs: recipe of the products, bytes of a cached number, latent or not."""

    number_format: str = "bf16"
    cache_element_bytes: float = 2.0
    latent: bool = False


#: (kernel family, variant) to how it runs. "fp8-cache": the queries arrive in 16 bits, keys and values lie in 8.
VARIANTS: Mapping[tuple[str, str], CaseVariant] = {
    ("attention", "bf16"): CaseVariant(),
    ("attention", "fp32"): CaseVariant(number_format="fp32", cache_element_bytes=0.0),   # training: nothing is cached
    ("attention", "fp8"): CaseVariant(number_format="fp8", cache_element_bytes=1.0),
    ("attention", "fp8-cache"): CaseVariant(number_format="fp8", cache_element_bytes=1.0),
    ("attention", "latent-bf16"): CaseVariant(latent=True),
    ("attention", "latent-fp8-cache"): CaseVariant(number_format="fp8", cache_element_bytes=1.0, latent=True),
    ("decode", "bf16"): CaseVariant(),
    ("decode", "fp8"): CaseVariant(cache_element_bytes=1.0),
    ("decode", "latent-bf16"): CaseVariant(latent=True),
    ("decode", "latent-fp8"): CaseVariant(cache_element_bytes=1.0, latent=True),
}
#: Dimensions of the one latent attention that the table measures (rank 512, rope 64, heads of 128 + 64 and 128).
_LATENT_PREFILL = (192.0, 128.0)
_LATENT_DECODE = (576.0, 512.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCases:
    """Rows as columns over C. times_s: library (and release, for latent attention) to seconds, NaN where blank.

    kind: what the table calls the row (context, generation); a context of one token runs the decode kernel.
    key: the shape family that the split is drawn over. unusable: why a row is no kernel of ours, or None.
    """

    chip: Sequence[str]
    family: Sequence[str]
    variant: Sequence[str]
    kind: Sequence[str]
    shape: AttentionShape
    times_s: Mapping[str, Floats]
    key: Sequence[str]
    validate: NDArray[np.bool_]
    unusable: Sequence[str | None]

    def __len__(self) -> int:
        return len(self.chip)

    def blocks(self) -> list[tuple[str, str, str, NDArray[np.intp]]]:
        """Usable rows of each (chip, family, variant), in the order they first appear."""
        rows: dict[tuple[str, str, str], list[int]] = {}
        for index, reason in enumerate(self.unusable):
            if reason is None:
                rows.setdefault((self.chip[index], self.family[index], self.variant[index]), []).append(index)
        return [(*block, np.array(indices)) for block, indices in rows.items()]

    def shape_at(self, rows: NDArray[Any]) -> AttentionShape:
        """The shapes of some rows (indices or a mask)."""
        return AttentionShape(**{name: getattr(self.shape, name)[rows] for name in AttentionShape.__slots__})


def case_time_s(shape: AttentionShape, family: str, variant: str, *, chip: Chip, parameters: Any) -> Floats:
    """Device seconds of measured cases of one kernel family and variant; context tables write the cache."""
    runs = VARIANTS[family, variant]
    if family == "decode":
        return decode_time_s(shape, chip=chip, parameters=parameters, latent=runs.latent,
                             cache_element_bytes=runs.cache_element_bytes)
    return attention_time_s(shape, chip=chip, parameters=parameters, number_format=runs.number_format,
                            cache_element_bytes=runs.cache_element_bytes,
                            latent_dim=_LATENT_DECODE[0] if runs.latent else 0.0)


def attention_cases(frame: pl.DataFrame) -> AttentionCases:
    """A typed table (`catalogue.measurements.typed_columns`) of attention, decode or latent attention as cases."""
    return _latent_cases(frame) if "op_name" in frame.columns else _plain_cases(frame)


def _floats(frame: pl.DataFrame, name: str) -> Floats:
    values: Floats = np.asarray(frame[name].cast(float).to_numpy(), dtype=np.float64)
    return np.nan_to_num(values, nan=0.0)


def _times_s(frame: pl.DataFrame, name: str) -> Floats:
    """Microseconds as seconds; NaN where a cell is blank or no time."""
    time_s: Floats = np.asarray(frame[name].cast(float, strict=False).to_numpy(), dtype=np.float64) * 1e-6
    return np.where(np.isfinite(time_s) & (time_s > 0), time_s, np.nan)


def _text(frame: pl.DataFrame, name: str) -> list[str]:
    return [value or "" for value in frame[name].to_list()]


def _validate(keys: Sequence[str]) -> NDArray[np.bool_]:
    chosen = {key: zlib.crc32(key.encode()) % 2 == 1 for key in set(keys)}
    return np.array([chosen[key] for key in keys], dtype=bool)


def _plain_cases(frame: pl.DataFrame) -> AttentionCases:
    cached, new = _floats(frame, "step"), np.maximum(_floats(frame, "isl"), 1.0)
    window, heads = _floats(frame, "window_size"), np.maximum(_floats(frame, "num_heads"), 1.0)
    kv_heads = _floats(frame, "num_key_value_heads")
    kv_heads = np.where(kv_heads > 0, kv_heads, heads)
    head_dim = np.maximum(_floats(frame, "head_dim"), 1.0)
    shape = attention_shape(sequences=np.maximum(_floats(frame, "batch_size"), 1.0), query_tokens=new,
                            context_tokens=new + cached, heads=heads, kv_heads=kv_heads, window_tokens=window,
                            head_dim=head_dim)
    family = np.where((cached > 0) | (new == 1), "decode", "attention").tolist()
    eight_bit = [["fp8" in value for value in _text(frame, name)] for name in ("attn_dtype", "kv_cache_dtype")]
    wide = [value in ("fp32", "float32") for value in _text(frame, "attn_dtype")]
    variant = ["fp32" if full and kind == "attention" else "bf16" if not cache
               else "fp8" if query or kind == "decode" else "fp8-cache"
               for kind, full, query, cache in zip(family, wide, *eight_bit, strict=True)]
    keys = [f"{a:.0f},{b:.0f},{c:.0f},{d:.0f}" for a, b, c, d in zip(heads, kv_heads, head_dim, window, strict=True)]
    times = {name.removesuffix("_us"): _times_s(frame, name) for name in frame.columns if name.endswith("_us")}
    return AttentionCases(chip=_text(frame, "chip"), family=family, variant=variant, shape=shape, key=keys,
                          kind=np.where(cached > 0, "generation", "context").tolist(), validate=_validate(keys),
                          unusable=[None] * frame.height, times_s=times)


def _latent_cases(frame: pl.DataFrame) -> AttentionCases:
    cached, new = _floats(frame, "step"), np.maximum(_floats(frame, "isl"), 1.0)
    heads, degree = np.maximum(_floats(frame, "num_heads"), 1.0), _floats(frame, "tp_size")
    is_decode = np.array(["generation" in name for name in _text(frame, "op_name")], dtype=bool)
    queries = np.where(is_decode & (cached > 0), 1.0, new)
    widths = [np.where(is_decode, decode, prefill)
              for decode, prefill in zip(_LATENT_DECODE, _LATENT_PREFILL, strict=True)]
    shape = attention_shape(sequences=np.maximum(_floats(frame, "batch_size"), 1.0), query_tokens=queries,
                            context_tokens=new + cached, heads=heads, kv_heads=np.where(is_decode, 1.0, heads),
                            head_dim=widths[0], value_head_dim=widths[1])
    small_cache = ["fp8" in value for value in _text(frame, "kv_cache_dtype")]
    variant = [("latent-fp8" if decode else "latent-fp8-cache") if small else "latent-bf16"
               for decode, small in zip(is_decode, small_cache, strict=True)]
    unusable = ["a whole attention module, its projections included; not a kernel" if "fp8" in value else None
                for value in _text(frame, "mla_dtype")]
    keys = [f"{a:.0f},{b:.0f}" for a, b in zip(heads, degree, strict=True)]
    releases = [" ".join(part for part in parts if part) for parts in zip(
        *(_text(frame, name) for name in ("backend", "bver", "kernel_source")), strict=True)]
    time_s = _times_s(frame, "time_us")
    times = {release: np.where(np.array(releases) == release, time_s, np.nan) for release in dict.fromkeys(releases)}
    return AttentionCases(chip=_text(frame, "chip"), family=np.where(is_decode, "decode", "attention").tolist(),
                          variant=variant, shape=shape, key=keys, validate=_validate(keys), unusable=unusable,
                          kind=np.where(is_decode, "MLA generation", "MLA context").tolist(), times_s=times)
