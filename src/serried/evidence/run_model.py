"""The model of a published run: from the catalogue where the name is known, else from the row's own columns."""

from __future__ import annotations

import functools
import re
from dataclasses import replace

from serried.catalogue.entry import fold
from serried.errors import SerriedError
from serried.evidence.assumptions import Assumptions, SourceAssumption
from serried.evidence.cells import Cells, Unusable
from serried.workload import AttentionSpec, Block, MlpSpec, Model, read_model, with_layers

__all__ = ["model_of_row"]

#: What follows the name of an architecture without changing it.
_SUFFIX = re.compile(r"\s*(\(.*\)|,? cut to.*|\b\d+-node\b|\b(LoRA|QLoRA|SFT|PEFT)\b)\s*", re.IGNORECASE)
_ADAPTER = re.compile(r"\bq?lora\b|\bpeft\b", re.IGNORECASE)


def model_of_row(cells: Cells, source: SourceAssumption, assumptions: Assumptions) -> Model:
    """The architecture of the row; Unusable names the first dimension that nobody gives.

    Dimensions printed in the row win where they make a whole dense or mixture-of-experts model with plain attention;
    the catalogue is asked for the rest (latent attention, sliding windows, hybrids, blanks) and cut to `n_layers`.
    """
    printed = cells["model"]
    name = _SUFFIX.sub(" ", printed).strip()
    table = assumptions.architectures.get(name)
    plain = cells["attention"].upper() in ("MHA", "GQA", "MQA", "")
    if table is not None:
        cells = cells.filled({column: str(value) for column, value in table.items()})
    if plain and cells["hidden"] and cells["n_heads"] and cells["n_layers"] and (cells["ffn"] or cells["moe_ffn"]):
        model = _from_columns(cells, name)
    else:
        model = _from_catalogue(cells, assumptions.models.get(name, name), printed)
    trained = next((count for start, count in source.prediction_blocks.items() if fold(printed).startswith(start)), 0)
    model = replace(model, prediction_blocks=1 if re.search(r"\bw/ ?MTP\b", cells["notes"]) else trained)
    if not _ADAPTER.search(printed):
        return model
    return replace(model, adapter_rank=source.adapter_rank, adapter_mlp=source.adapter_mlp)


def _from_columns(cells: Cells, name: str) -> Model:
    hidden, heads = cells.need("hidden", most=1e6), cells.need("n_heads", most=1e5)
    head_dim = cells.whole("head_dim", most=1e5) or max(hidden // heads, 1)
    kv_heads = cells.whole("n_kv_heads", most=1e5) or heads
    if heads % kv_heads:
        raise Unusable(f"n_kv_heads = {kv_heads} does not divide n_heads = {heads}")
    attention = AttentionSpec(kind="full", heads=heads, kv_heads=kv_heads, head_dim=head_dim, value_head_dim=head_dim)
    gated = _gated(cells, hidden)
    return Model(
        name=name, hidden=hidden, vocab=_vocabulary(cells, name), blocks=_blocks(cells, attention, gated=gated),
        tied_embeddings=not gated, learned_positions=0 if gated else (cells.whole("seq_len") or 0),
        norm_bias=not gated, source="columns of the cases file")


def _gated(cells: Cells, hidden: int) -> bool:
    """As printed; a blank means the plain MLP where its width is the conventional four times the hidden width."""
    printed = cells.whole("gated_mlp", most=1, zero=True)
    if printed is not None:
        return bool(printed)
    return bool(cells["n_experts"]) or cells.whole("ffn", most=1e7) != 4 * hidden


def _blocks(cells: Cells, attention: AttentionSpec, *, gated: bool) -> tuple[Block, ...]:
    layers, experts = cells.need("n_layers", most=1e4), cells.whole("n_experts", most=1e5)
    dense_width = cells.whole("ffn", most=1e7)
    if not experts:
        if dense_width is None:
            raise Unusable("ffn is blank")
        return (Block(count=layers, attention=attention, mlp=MlpSpec(width=dense_width, gated=gated, bias=not gated)),)
    width = cells.whole("moe_ffn", most=1e7) or dense_width
    per_token = cells.whole("top_k", most=experts)
    if width is None or per_token is None:
        raise Unusable(f"{'moe_ffn' if width is None else 'top_k'} is blank")
    shared = cells.whole("n_shared_experts", most=1e4, zero=True) or 0
    dense = min(cells.whole("n_dense_layers", most=1e4, zero=True) or 0, layers)
    mixture = MlpSpec(width=width, gated=gated, experts=experts, experts_per_token=per_token,
                      shared_width=shared * width)
    found = [Block(count=layers - dense, attention=attention, mlp=mixture)] if layers > dense else []
    if dense:
        plain = MlpSpec(width=dense_width or width, gated=gated)
        found.insert(0, Block(count=dense, attention=attention, mlp=plain))
    return tuple(found)


def _vocabulary(cells: Cells, name: str) -> int:
    """As printed, else of the catalogue's model of that name, else what is assumed of the source; a single-layer timing
    has none."""
    if cells["metric_name"].startswith("layer_"):
        return cells.whole("vocab") or 1024
    if not cells.printed("vocab") and (known := _catalogue_model(name)) is not None:
        return known.vocab
    return cells.need("vocab", most=1e8)


@functools.lru_cache(maxsize=256)
def _catalogue_model(name: str) -> Model | None:
    try:
        return read_model(name)
    except SerriedError:
        return None


def _from_catalogue(cells: Cells, name: str, printed: str) -> Model:
    model = _catalogue_model(name)
    if model is None:
        dimensions = ("n_layers", "hidden", "n_heads", "ffn")
        missing = next((column for column in dimensions if not cells[column]), "attention")
        raise Unusable(f"{missing} is blank or not enough and the catalogue has no model {printed!r}")
    layers = cells.whole("n_layers", most=1e4)
    if layers is None or layers == model.layer_count:
        return model
    dense = cells.whole("n_dense_layers", most=1e4, zero=True)
    return with_layers(model, layers, dense_layers=dense)
