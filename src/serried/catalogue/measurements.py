"""Read a table of measurements: shipped under `serried/data/measurements/`, or a user's file of the same columns.

Every table declares its columns: text, or a number with the range that is believed. Two ways to read:

- `read_measurements` is strict: the first bad cell raises BadInput with file, row and field. For fitting.
- `typed_columns` is patient: a bad cell becomes null and its row gets a reason. For judging, which skips such rows.

A blank cell is unknown and becomes null in both; only a column marked `required` must be filled.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from serried.catalogue.entry import DATA, read_toml
from serried.errors import BadInput, nearest

if TYPE_CHECKING:
    import polars as pl

__all__ = ["TABLES", "Column", "Table", "file_of", "kernel_split", "read_measurements", "recognise", "typed_columns"]

MEASUREMENTS = DATA / "measurements"
_LEADER_ROWS = 2   # the header is row 1 of the file, the first case row 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: what a cell holds and, for numbers, the range that is believed.

    required: a blank cell is an error of its row. optional: the whole column may be absent from a user's file.
    """

    holds: Literal["text", "count", "number"] = "number"
    low: float = 0.0
    high: float = math.inf
    required: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A kind of measurements: its columns, and which of them tell it from others."""

    name: str
    columns: Mapping[str, Column]
    telling: tuple[str, ...]


_TEXT = Column(holds="text")
_NAME = Column(holds="text", required=True)
_COUNT = Column(holds="count", low=0, high=2**53)
_SHAPE = Column(holds="count", low=1, high=2**53, required=True)
_LENGTH = Column(holds="count", low=0, high=2**53, required=True)
_TIME = Column(low=1e-6, high=1e12)
_TIME_REQUIRED = Column(low=1e-6, high=1e12, required=True)
_RATE = Column(low=0, high=1e12)
_FLAG = Column(holds="count", low=0, high=1)


def _optional(column: Column) -> Column:
    return Column(holds=column.holds, low=column.low, high=column.high, optional=True)


_LIBRARY_TIMES = {"sglang_us": _optional(_TIME), "trtllm_us": _optional(_TIME), "vllm_us": _optional(_TIME)}
_ATTENTION = {"chip": _NAME, "batch_size": _SHAPE, "isl": _LENGTH, "num_heads": _SHAPE, "num_key_value_heads": _LENGTH,
              "head_dim": _SHAPE, "attn_dtype": _NAME, "kv_cache_dtype": _NAME, "step": _LENGTH,
              "window_size": _optional(Column())} | _LIBRARY_TIMES
_ENGINE = {"chip": _NAME, "backend": _TEXT, "bver": _TEXT, "kernel_source": _TEXT}
_DEGREES = ("tp", "pp", "dp", "cp", "ep", "vpp")
_PARTS = ("batch_size", "tp_size", "pp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")

_ALL = (
    Table(name="gemm", telling=("m", "n", "k", "dtype"), columns={
        "chip": _NAME, "m": _SHAPE, "n": _SHAPE, "k": _SHAPE, "dtype": _NAME,
        "time_us": _optional(_TIME)} | _LIBRARY_TIMES),
    Table(name="attention_context", columns=_ATTENTION,
          telling=("isl", "num_key_value_heads", "head_dim", "attn_dtype")),
    Table(name="attention_generation", columns=_ATTENTION,
          telling=("isl", "num_key_value_heads", "head_dim", "attn_dtype")),
    Table(name="mla", telling=("op_name", "mla_dtype"), columns=_ENGINE | {
        "op_name": _NAME, "mla_dtype": _NAME, "kv_cache_dtype": _NAME, "num_heads": _SHAPE, "batch_size": _SHAPE,
        "isl": _LENGTH, "tp_size": _SHAPE, "step": _LENGTH, "time_us": _TIME_REQUIRED}),
    Table(name="moe", telling=("moe_dtype", "num_tokens", "inter_size"), columns=_ENGINE | {
        "moe_dtype": _NAME, "num_tokens": _SHAPE, "hidden_size": _SHAPE, "inter_size": _SHAPE, "topk": _SHAPE,
        "num_experts": _SHAPE, "moe_tp_size": _SHAPE, "moe_ep_size": _SHAPE, "distribution": _NAME,
        "time_us": _TIME_REQUIRED}),
    Table(name="collectives_intra_node",
          telling=("op", "num_gpus", "message_elems_or_bytes"), columns={
              "system": _NAME, "lib": _TEXT, "ver": _TEXT, "op": _NAME, "dtype": _NAME, "num_gpus": _SHAPE,
              "message_elems_or_bytes": _SHAPE, "time_us": _TIME_REQUIRED, "file": _optional(_TEXT)}),
    Table(name="collectives",
          telling=("collective", "n_ranks", "message_bytes"), columns={
        "id": _TEXT, "source": _TEXT, "url": _optional(_TEXT), "system": _NAME, "collective": _NAME, "n_ranks": _SHAPE,
        "ranks_per_node": _COUNT, "message_bytes": _COUNT, "algbw_GBps": _RATE, "busbw_GBps": _RATE, "time_us": _TIME,
        "protocol_algorithm": _optional(_TEXT), "notes": _optional(_TEXT), "set": _optional(_TEXT)}),
    Table(name="training", telling=("seq_len", "global_batch", "metric_name"), columns={
        "id": _NAME, "source": _TEXT, "url": _optional(_TEXT), "model": _TEXT, "n_layers": _COUNT, "hidden": _COUNT,
        "n_heads": _COUNT, "n_kv_heads": _COUNT, "head_dim": _COUNT, "ffn": _COUNT, "vocab": _COUNT,
        "gated_mlp": _FLAG, "n_experts": _COUNT, "top_k": _COUNT, "n_shared_experts": _COUNT, "moe_ffn": _COUNT,
        "n_dense_layers": _COUNT, "attention": _TEXT, "seq_len": _COUNT, "global_batch": _COUNT,
        "micro_batch": _COUNT, "chip": _TEXT, "n_chips": _COUNT, "chips_per_node": _COUNT}
        | dict.fromkeys(_DEGREES, _COUNT) | {
        "zero_stage": Column(holds="count", low=0, high=3), "sequence_parallel": _FLAG, "recompute": _TEXT,
        "dtype": _TEXT, "framework": _TEXT, "metric_name": _NAME, "metric_value": _TEXT, "unit": _NAME,
        "peak_tflops_used_for_mfu": _optional(_RATE), "memory_gb_if_given": _optional(_RATE), "notes": _optional(_TEXT),
        "split": _optional(_TEXT)}),
    Table(name="serving_points",
          telling=("engine", "setting", "metric"), columns={
        "id": _NAME, "chip": _NAME, "n_chips": _SHAPE, "model": _NAME, "dtype": _NAME, "engine": _TEXT,
        "setting": _TEXT, "input_len": _COUNT, "output_len": _COUNT, "concurrency": _COUNT, "metric": _NAME,
        "value": Column(low=1e-9, high=1e12, required=True), "unit": _NAME, "source": _optional(_TEXT),
        "confidence": _optional(_TEXT)}),
    Table(name="serving_engines",
          telling=("silicon_ttft_ms", "model_path"), columns={
        "id": _NAME, "silicon_data_source": _TEXT, "backend": _NAME, "backend_version": _TEXT, "model_path": _NAME,
        "system": _NAME, "precision": _TEXT, "mode": _NAME, "isl": _SHAPE, "osl": _SHAPE, "gemm_quant_mode": _TEXT,
        "moe_quant_mode": _TEXT} | dict.fromkeys(_PARTS, _COUNT)
        | {f"{role}_{part}": _COUNT for role in ("prefill", "decode") for part in (*_PARTS, "num_workers")}
        | {"silicon_ttft_ms": _TIME, "silicon_tpot_ms": _TIME}),
    Table(name="serving_published",
          telling=("throughput_tok_s_per_chip", "concurrency_or_batch"), columns={
              "id": _NAME, "source": _TEXT, "url": _optional(_TEXT), "model": _NAME, "chip": _NAME, "n_chips": _SHAPE,
              "tp": _COUNT, "pp": _COUNT, "ep": _COUNT, "dp": _COUNT, "dtype_weights": _TEXT, "dtype_kv": _TEXT,
              "engine_version": _TEXT, "mode": _TEXT, "input_len": _COUNT, "output_len": _COUNT,
              "concurrency_or_batch": _TEXT, "request_rate": _TEXT, "ttft_ms": _TIME, "tpot_ms": _TIME,
              "throughput_tok_s_per_chip": _RATE, "throughput_kind": _TEXT, "split": _optional(_TEXT),
              "notes": _optional(_TEXT)}),
    Table(name="serving_requests",
          telling=("queued_s", "first_token_s", "last_token_s"), columns={
              "run": _NAME, "chip": _NAME, "model": _NAME, "engine": _TEXT, "dtype": _TEXT, "max_sequences": _COUNT,
              "token_budget": _COUNT, "input_len": _SHAPE, "output_len": _SHAPE}
          | dict.fromkeys(("queued_s", "scheduled_s", "first_token_s", "last_token_s"), Column(low=0, high=1e9))),
)

#: Every kind of measurements by its name.
TABLES: Mapping[str, Table] = {table.name: table for table in _ALL}


def read_measurements(table: str, path: str | Path | None = None) -> pl.DataFrame:
    """The shipped file of `table`, or the user's file at `path`, with typed columns; strict.

    Returns the declared columns in their order: text as String, counts as Int64, numbers as Float64; a declared
    optional column that the file lacks is all null, further columns are kept as text.
    Raises BadInput for an unknown table, an unreadable file, a missing column, and the first bad cell, by row.
    """
    spec = _table(table)
    if path is None:
        return _shipped(table)
    return _strict(_read_text(Path(path)), spec, str(path))


def kernel_split(key: str) -> Literal["calibrate", "validate"]:
    """Which half of the kernel measurements a shape family belongs to; fits see the calibrate half only.

    key: what is held out together, as text: "n,k" of a matrix product, the shape family of an attention. The half is
    the parity of the key's CRC-32, so that it needs no list and is the same for everyone.
    """
    return "validate" if zlib.crc32(key.encode()) % 2 else "calibrate"


def file_of(table: str) -> Path:
    """Where the shipped measurements of `table` stand; the index of the folder says so."""
    return MEASUREMENTS / str(_files()[_table(table).name])


def recognise(columns: Iterable[str], *, file: str = "") -> str:
    """The name of the table that a header belongs to: the one whose telling columns are there, and most of the others.

    The two attention tables have the same columns; the first of them is answered, and the caller knows which it reads.
    """
    present = set(columns)
    ranked = [table for table in _ALL if set(table.telling) <= present]
    if not ranked:
        near = max(_ALL, key=lambda table: len(present & set(table.columns)))
        lacking = [name for name in near.telling if name not in present]
        raise BadInput(file=file, field="header", value=", ".join(sorted(present))[:200],
                       expected=f"the columns of one of {', '.join(TABLES)}",
                       remedy=f"Nearest: {near.name}, which lacks {', '.join(lacking)}.")
    return max(ranked, key=lambda table: len(present & set(table.columns))).name


def typed_columns(frame: pl.DataFrame, table: str, *, file: str = "") -> tuple[pl.DataFrame, list[str | None]]:
    """`frame` of text cells as typed columns, and for each row the reason why it cannot be used, or None; patient.

    Raises BadInput only when a whole declared column is missing.
    """
    import polars as pl

    spec = _table(table)
    _check_header(frame.columns, spec, file)
    typed: list[pl.Series] = []
    reasons: list[str | None] = [None] * frame.height
    for name, column in spec.columns.items():
        values, bad = _cells(frame, name, column)
        for row in bad.arg_true().to_list():
            reasons[row] = reasons[row] or _complaint(frame, name, column, row)
        typed.append(values)
    rest = [frame[name] for name in frame.columns if name not in spec.columns]
    return pl.DataFrame([*typed, *rest]), reasons


def _table(name: str) -> Table:
    if name not in TABLES:
        near = nearest(name, TABLES)
        raise BadInput(field="table", value=name, expected=f"one of {', '.join(TABLES)}",
                       remedy=f"Nearest: {', '.join(near)}." if near else "Choose one of these.")
    return TABLES[name]


@functools.cache
def _files() -> Mapping[str, object]:
    return read_toml(MEASUREMENTS / "index.toml")


@functools.cache
def _shipped(table: str) -> pl.DataFrame:
    path = file_of(table)
    return _strict(_read_text(path), TABLES[table], str(path))


def _read_text(path: Path) -> pl.DataFrame:
    """Every cell as text; gzip by its name or content."""
    import polars as pl

    try:
        frame = pl.read_csv(path, infer_schema=False)
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise BadInput(file=str(path), field="file", value=path.name, expected="a CSV of measurements with a header",
                       remedy=(str(error).splitlines() or ["Check the file."])[0]) from None
    if not frame.height:
        raise BadInput(file=str(path), field="file", value=path.name, expected="at least one row below the header",
                       remedy="Add rows.")
    return frame


def _strict(frame: pl.DataFrame, spec: Table, file: str) -> pl.DataFrame:
    typed, reasons = typed_columns(frame, spec.name, file=file)
    for row, reason in enumerate(reasons):
        if reason is not None:
            field, _, complaint = reason.partition(": ")
            raise BadInput(file=file, field=f"row {row + _LEADER_ROWS}, {field}", value=frame[field][row],
                           expected=complaint, remedy="Correct the cell, or leave it blank if it is unknown.")
    return typed


def _check_header(columns: Iterable[str], spec: Table, file: str) -> None:
    present = set(columns)
    missing = [name for name, column in spec.columns.items() if name not in present and not column.optional]
    if missing:
        near = nearest(missing[0], present - set(spec.columns))
        raise BadInput(file=file, field="header", value=f"no column {missing[0]!r}",
                       expected=f"the columns of {spec.name}: {', '.join(spec.columns)}",
                       remedy=f"Perhaps {near[0]!r} is meant." if near else "Add the column; blank cells are allowed.")


def _cells(frame: pl.DataFrame, name: str, column: Column) -> tuple[pl.Series, pl.Series]:
    """One column as its type, and where its cells are bad."""
    import polars as pl

    kind = {"text": pl.String, "count": pl.Int64, "number": pl.Float64}[column.holds]
    if name not in frame.columns:
        return pl.Series(name, [None] * frame.height, dtype=kind), pl.Series([False] * frame.height, dtype=pl.Boolean)
    text = frame[name].cast(pl.String).str.strip_chars()
    text = text.set(text.fill_null("") == "", None)
    blank = text.is_null()
    if column.holds == "text":
        return text.alias(name), blank if column.required else pl.Series([False] * frame.height, dtype=pl.Boolean)
    number = text.cast(pl.Float64, strict=False)
    good = number.is_finite().fill_null(False) & number.is_between(column.low, column.high).fill_null(False)
    if column.holds == "count":
        good &= (number == number.floor()).fill_null(False)
    bad = ~good & (~blank | column.required)
    number = number.set(~good, None)
    return number.cast(kind).alias(name), bad


def _complaint(frame: pl.DataFrame, name: str, column: Column, row: int) -> str:
    """ "<field>: <what was expected>" for one bad cell."""
    if column.holds == "text":
        return f"{name}: a text; the cell is blank"
    noun = "a whole number" if column.holds == "count" else "a number"
    low, high = (f"{bound:g}" for bound in (column.low, column.high))
    reach = f" from {low}" + (f" to {high}" if math.isfinite(column.high) else "")
    found = str(frame[name][row] or "").strip()[:40]
    return f"{name}: {noun}{reach}, not {found!r}" if found else f"{name}: {noun}{reach}; the cell is blank"
