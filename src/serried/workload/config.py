"""From a `config.json`, or the [config] table of a catalogue model, to a `Model`. Nothing is guessed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from serried.catalogue import read_entry
from serried.errors import BadInput, nearest
from serried.workload.architectures import ARCHITECTURES, STANDARD, Architecture
from serried.workload.legality import refuse_illegal
from serried.workload.spec import AttentionSpec, Block, MlpSpec, Model

__all__ = ["model_of_config", "model_of_dimensions", "read_model", "with_layers"]

_MOST = 10**9   # no count of an architecture is larger; a larger one is a slip of the pen
_LAYER_WORDS = {"full_attention": "full", "attention": "full", "sliding_attention": "window",
                "chunked_attention": "chunk", "linear_attention": "linear"}


def read_model(name_or_path: str) -> Model:
    """The catalogue's model of that name (case, organisation do not matter), or a `config.json` or its folder.

    Raises BadInput with the nearest names, or with file, key, value and expectation of what is wrong in a config.
    """
    path = Path(name_or_path)
    if path.is_dir() and (path / "config.json").is_file():
        path = path / "config.json"
    if path.suffix == ".json" or (path.is_file() and path.suffix != ".toml"):
        return model_of_config(_read_json(path), name=path.parent.name or path.stem, file=str(path))
    if path.suffix == ".toml":
        return _catalogue_model(name_or_path)
    try:
        return _catalogue_model(name_or_path)
    except BadInput as error:
        if path.is_dir():
            raise BadInput(file=name_or_path, field="model", value=path.name, expected="a folder with a config.json",
                           remedy="Put the model's config.json there, or name a catalogue model.") from None
        if error.field != "model" or "/" not in name_or_path:
            raise
        return _catalogue_model(name_or_path.rpartition("/")[2])


def model_of_config(config: Mapping[str, Any], *, name: str, file: str = "") -> Model:
    """The model that a Hugging Face config describes. Raises BadInput on an unsupported architecture or a bad key."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        near = nearest(str(kind), ARCHITECTURES)
        raise BadInput(file=file, field="model_type", value=kind,
                       expected=f"a supported architecture: {', '.join(sorted(ARCHITECTURES))}",
                       remedy=f"Nearest: {', '.join(near)}; none is guessed." if near else "None is guessed.")
    architecture = ARCHITECTURES[kind]
    inner = config
    if architecture.nested:
        nested = config.get(architecture.nested)
        if not isinstance(nested, Mapping):
            raise BadInput(file=file, field=architecture.nested, value=nested, expected="a table of the language model",
                           remedy="Give the whole config.json of the model.")
        inner = {"tie_word_embeddings": config.get("tie_word_embeddings"), **nested}
    keys = _Keys(config=inner, architecture=architecture, file=file)
    model = _model(keys, name, file)
    refuse_illegal(model, keys.spelled, file)
    return model


@dataclass(frozen=True, slots=True)
class _Keys:
    """A config seen through the words of its architecture; every refusal names the config's own key."""

    config: Mapping[str, Any]
    architecture: Architecture
    file: str

    def spelled(self, word: str) -> str:
        """The config's key for our word."""
        return self.architecture.keys.get(word, STANDARD.get(word, word))

    def raw(self, word: str) -> Any:
        """The value as it stands; None when the key is absent or null."""
        value: Any = self.config
        for part in self.spelled(word).split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def count(self, word: str, *, default: int | None = None, least: int = 1) -> int:
        """A whole number of at least `least`; without the key the family's default, then `default`, else refused."""
        value = self.raw(word)
        if value is None:
            fallback = self.architecture.defaults.get(word, default)
            if fallback is None:
                raise self.refusal(word, value, "a whole number; this architecture needs it")
            return int(fallback)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1 \
                or not least <= value <= _MOST:
            raise self.refusal(word, value, f"a whole number from {least} to {_MOST:,}")
        return int(value)

    def flag(self, word: str) -> bool:
        """True or false; without the key the family's default, else false."""
        value = self.raw(word)
        if value is None:
            return bool(self.architecture.defaults.get(word, False))
        if not isinstance(value, bool):
            raise self.refusal(word, value, "true or false")
        return value

    def indices(self, word: str, layer_count: int) -> frozenset[int]:
        """A list of layer numbers; empty without the key."""
        value = self.raw(word)
        if value is None:
            return frozenset()
        if not isinstance(value, list) or not all(
                isinstance(item, int) and not isinstance(item, bool) and 0 <= item < layer_count for item in value):
            raise self.refusal(word, value, f"a list of layer numbers below {layer_count}")
        return frozenset(value)

    def refusal(self, word: str, value: object, expected: str) -> BadInput:
        """The error that names this key."""
        return BadInput(file=self.file, field=self.spelled(word), value=value, expected=expected,
                        remedy="Correct the config, or take the one the model was published with.")


def _model(keys: _Keys, name: str, file: str) -> Model:
    architecture = keys.architecture
    hidden, layer_count = keys.count("hidden"), keys.count("layers")
    if layer_count > 10_000:
        raise keys.refusal("layers", layer_count, "at most 10,000 layers")
    attentions = _attention_by_kind(keys, hidden)
    runs: dict[tuple[str, str], int] = {}
    for layer in _layers(keys, layer_count):
        runs[layer] = runs.get(layer, 0) + 1
    blocks = tuple(Block(count=count, attention=attentions(attention) if attention else None,
                         mlp=_mlp_of_kind(mlp, keys, hidden), norms=architecture.norms)
                   for (attention, mlp), count in runs.items())
    positions = keys.count("positions", default=0, least=0)
    learned = architecture.positions == "learned" or (
        architecture.positions == "switched" and _learns_positions(keys))
    return Model(name=name, hidden=hidden, vocab=keys.count("vocab"), blocks=blocks, tied_embeddings=keys.flag("tied"),
                 learned_positions=positions + architecture.position_offset if learned else 0,
                 norm_bias=architecture.norm_bias, max_positions=positions,
                 prediction_blocks=keys.count("prediction", default=0, least=0), source=file)


def _learns_positions(keys: _Keys) -> bool:
    """A learned table unless linear biases or rotary positions take its place, or it is switched off."""
    table = keys.config.get("attn_config")
    attention = table if isinstance(table, Mapping) else {}
    return not (attention.get("alibi") or attention.get("rope") or keys.config.get("learned_pos_emb") is False)


def _attention_by_kind(keys: _Keys, hidden: int) -> Callable[[str], AttentionSpec]:
    """A function from the word of a layer to its AttentionSpec; unused kinds are not read."""
    architecture = keys.architecture
    heads = keys.count("heads")
    has_bias = "attention_bias" in architecture.bias_keys and keys.flag("attention_bias")
    qkv_bias, output_bias = has_bias or "qkv" in architecture.bias, has_bias or "output" in architecture.bias

    def full() -> AttentionSpec:
        kv_heads = keys.count("kv_heads", default=heads)
        if keys.raw("head_dim") is None and "head_dim" not in architecture.defaults and hidden % heads:
            raise keys.refusal("hidden", hidden, f"a multiple of {keys.spelled('heads')} ({heads}) without head_dim")
        head_dim = keys.count("head_dim", default=hidden // heads)
        return AttentionSpec(
            kind="full", heads=heads, kv_heads=kv_heads, head_dim=head_dim, value_head_dim=head_dim,
            qk_norm=architecture.qk_norm or keys.flag("qk_norm"), qkv_bias=qkv_bias, output_bias=output_bias,
            output_gate=architecture.output_gate, sinks=architecture.sinks,
            rotary=architecture.positions == "rotary")

    def mla() -> AttentionSpec:
        rope = keys.count("rope_head_dim")
        return AttentionSpec(
            kind="mla", heads=heads, kv_heads=heads, head_dim=keys.count("plain_head_dim") + rope,
            value_head_dim=keys.count("value_head_dim"), query_rank=keys.count("query_rank", default=0, least=0),
            kv_rank=keys.count("kv_rank"), rope_head_dim=rope, output_bias=output_bias)

    def linear() -> AttentionSpec:
        key_heads, value_heads = keys.count("state_key_heads"), keys.count("state_value_heads")
        key_dim, value_dim = keys.count("state_key_dim"), keys.count("state_value_dim")
        return AttentionSpec(
            kind="linear", heads=value_heads, kv_heads=key_heads, head_dim=key_dim, value_head_dim=value_dim,
            state_key_heads=key_heads, state_value_heads=value_heads, state_key_dim=key_dim,
            state_value_dim=value_dim, conv_width=keys.count("conv_width"), rotary=False,
            state_space=bool(architecture.letters))

    def of_kind(kind: str) -> AttentionSpec:
        if kind == "linear":
            return linear()
        spec = mla() if architecture.attention == "mla" else full()
        if kind in ("window", "chunk"):
            return replace(spec, window_tokens=keys.count("window"), chunked=kind == "chunk")
        return replace(spec, rotary=False) if architecture.period_of == "chunk" else spec

    return of_kind


def _layers(keys: _Keys, layer_count: int) -> list[tuple[str, str]]:
    """(attention, mlp) of each layer: "full", "window", "chunk", "linear" or ""; "dense", "moe" or ""."""
    letters = keys.architecture.letters
    if not letters:
        sparse = _sparse_layers(keys, layer_count)
        kinds = _attention_kinds(keys, layer_count)
        return [(kind, "moe" if layer in sparse else "dense") for layer, kind in enumerate(kinds)]
    pattern = keys.config.get("hybrid_override_pattern")
    if not isinstance(pattern, str) or len(pattern) != layer_count or not set(pattern) <= set(letters):
        raise BadInput(file=keys.file, field="hybrid_override_pattern", value=pattern,
                       expected=f"{layer_count} letters out of {' '.join(letters)}",
                       remedy="Give one letter for each layer.")
    return [letters[letter] for letter in pattern]


def _attention_kinds(keys: _Keys, layer_count: int) -> list[str]:
    """One of "full", "window", "chunk", "linear" for each layer."""
    other = keys.architecture.period_of
    listed = keys.config.get("layer_types")
    if listed is not None and other:
        if not isinstance(listed, list) or len(listed) != layer_count or not all(
                isinstance(word, str) and word in _LAYER_WORDS for word in listed):
            raise BadInput(file=keys.file, field="layer_types", value=listed,
                           expected=f"{layer_count} words out of {', '.join(_LAYER_WORDS)}",
                           remedy="Give one word for each layer.")
        return [_LAYER_WORDS[word] for word in listed]
    if other:
        period = keys.count("period")
        return ["full" if (layer + 1) % period == 0 else other for layer in range(layer_count)]
    switch = keys.config.get("use_sliding_window")
    how = keys.architecture.windowed
    if keys.raw("window") is None or not (how == "always" or (how == "switched" and switch is True)):
        return ["full"] * layer_count
    start = keys.count("max_window_layers", default=0, least=0) if how == "switched" else 0
    return ["window" if layer >= start else "full" for layer in range(layer_count)]


def _sparse_layers(keys: _Keys, layer_count: int) -> frozenset[int]:
    """Numbers of the layers with a mixture of experts."""
    if keys.architecture.mlp == "dense":
        return frozenset()
    listed = keys.indices("expert_list", layer_count)
    if listed:
        return listed
    step = keys.count("expert_step", default=1)
    leading = keys.count("dense_layers", default=0, least=0)
    dense = keys.indices("dense_list", layer_count)
    return frozenset(layer for layer in range(layer_count)
                     if layer >= leading and layer not in dense and (layer + 1) % step == 0)


def _mlp_of_kind(kind: str, keys: _Keys, hidden: int) -> MlpSpec | None:
    if not kind:
        return None
    return _expert_mlp(keys) if kind == "moe" else _dense_mlp(keys, hidden)


def _dense_mlp(keys: _Keys, hidden: int) -> MlpSpec:
    architecture = keys.architecture
    width = keys.raw("width")
    if width is None and "expansion" in architecture.defaults:
        width_count = hidden * keys.count("expansion")
    else:
        width_count = keys.count("width")
    bias = "mlp" in architecture.bias or ("mlp_bias" in architecture.bias_keys and keys.flag("mlp_bias"))
    return MlpSpec(width=width_count, gated=architecture.gated, bias=bias)


def _expert_mlp(keys: _Keys) -> MlpSpec:
    architecture = keys.architecture
    width = keys.count("expert_width")
    shared = keys.count("shared_experts", default=0, least=0) * width or keys.count("shared_width", default=0, least=0)
    return MlpSpec(width=width, gated=architecture.gated, bias="mlp" in architecture.bias,
                   experts=keys.count("experts"), experts_per_token=keys.count("experts_per_token"),
                   shared_width=shared, shared_gate=architecture.shared_gate and shared > 0,
                   latent_width=keys.count("latent_width", default=0, least=0),
                   router_bias="router" in architecture.bias,
                   route_groups=keys.count("route_groups", default=1), groups_per_token=keys.count(
                       "groups_per_token", default=1))


def _catalogue_model(name_or_path: str) -> Model:
    entry = read_entry("models", name_or_path, {"parameters": "1"})
    config = entry.tables.get("config")
    if not isinstance(config, Mapping):
        raise BadInput(file=entry.file, field="config", value=config, expected="a table with the keys of config.json",
                       remedy="Write the model's figures under [config].")
    return replace(model_of_config(config, name=entry.name, file=entry.file), name=entry.name)


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BadInput(file=str(path), field="file", value=path.name, expected="a readable config.json",
                       remedy=str(error)) from None
    if not isinstance(config, Mapping):
        raise BadInput(file=str(path), field="file", value=type(config).__name__, expected="a JSON object",
                       remedy="Give the config.json that lies beside the weights.")
    return config


def model_of_dimensions(*, name: str, n_layers: int, hidden: int, n_heads: int, vocab: int,
                        n_kv_heads: int | None = None, head_dim: int | None = None, ffn: int | None = None,
                        gated_mlp: bool | None = None, n_experts: int | None = None, top_k: int | None = None,
                        n_shared_experts: int | None = None, moe_ffn: int | None = None,
                        n_dense_layers: int | None = None, attention: str | None = None,
                        tied_embeddings: bool = False, file: str = "") -> Model:
    """A model from the columns of a table of training runs; blanks are None. Multi-head latent attention needs more
    dimensions than such a table has and is refused: take the catalogue's model and `with_layers`."""
    if str(attention).upper() == "MLA":
        raise BadInput(file=file, field="attention", value=attention, expected="MHA, GQA or MQA",
                       remedy="The ranks of latent attention are not in this table; name a catalogue model.")
    sparse = (n_experts or 0) > 0
    config: dict[str, Any] = {
        "num_hidden_layers": n_layers, "hidden_size": hidden, "num_attention_heads": n_heads, "vocab_size": vocab,
        "num_key_value_heads": n_kv_heads, "head_dim": head_dim, "intermediate_size": ffn,
        "tie_word_embeddings": tied_embeddings}
    if ffn is None and gated_mlp is False:
        config["intermediate_size"] = 4 * hidden
    if sparse:
        config |= {"num_experts": n_experts, "num_experts_per_tok": top_k, "moe_intermediate_size": moe_ffn,
                   "n_shared_experts": n_shared_experts, "first_k_dense_replace": n_dense_layers}
    gated = gated_mlp is not False
    architecture = Architecture(
        gated=gated, mlp="moe" if sparse else "dense", bias=() if gated else ("qkv", "output", "mlp"),
        norm_bias=not gated, defaults={"tied": False})
    keys = _Keys(config=config, architecture=architecture, file=file)
    model = _model(keys, name, file)
    refuse_illegal(model, keys.spelled, file)
    return model


def with_layers(model: Model, layer_count: int, *, dense_layers: int | None = None) -> Model:
    """`model` cut (or stretched) to `layer_count` blocks: leading dense blocks of a mixture of experts stay.

    dense_layers: how many of them, when the cut model has another number. Other kinds keep their proportions.
    """
    if layer_count < 1:
        raise BadInput(field="layers", value=layer_count, expected="at least one layer", remedy="Keep a layer.")
    sparse = [block for block in model.blocks if block.mlp is not None and block.mlp.experts]
    leading = [block for block in model.blocks if block not in sparse]
    if not sparse or not leading or (dense_layers is None and len(leading) > 1):
        return replace(model, blocks=_rescaled(model.blocks, layer_count))
    wanted = dense_layers if dense_layers is not None else sum(block.count for block in leading)
    kept = min(wanted, layer_count - 1)
    blocks = (_rescaled(tuple(leading), kept) if kept else ()) + _rescaled(tuple(sparse), layer_count - kept)
    return replace(model, blocks=blocks)


def _rescaled(blocks: tuple[Block, ...], layer_count: int) -> tuple[Block, ...]:
    """Runs whose counts keep their proportions and add up to `layer_count` (largest remainders)."""
    total = sum(block.count for block in blocks)
    exact = [block.count * layer_count / total for block in blocks]
    counts = [int(share) for share in exact]
    by_remainder = sorted(range(len(blocks)), key=lambda row: counts[row] - exact[row])
    for row in by_remainder[:layer_count - sum(counts)]:
        counts[row] += 1
    return tuple(replace(block, count=count) for block, count in zip(blocks, counts, strict=True) if count)
