"""What a model must satisfy to exist: a table of rules, each with the sentence for whoever breaks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from serried.errors import BadInput
from serried.workload.spec import AttentionSpec, Block, MlpSpec, Model

__all__ = ["LEGALITY", "Rule", "refuse_illegal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """holds: of one block of the model. word: which of our words is at fault. value: what stands there."""

    name: str
    word: str
    holds: Callable[[Model, AttentionSpec | None, MlpSpec | None], bool]
    value: Callable[[Model, Block], object]
    expected: str


def _heads(model: Model, block: Block) -> object:
    return (block.attention.kv_heads, block.attention.heads) if block.attention else None


def _experts(model: Model, block: Block) -> object:
    return (block.mlp.experts_per_token, block.mlp.experts) if block.mlp else None


def _window(model: Model, block: Block) -> object:
    return block.attention.window_tokens if block.attention else None


LEGALITY: tuple[Rule, ...] = (
    Rule(name="kv heads divide heads", word="kv_heads", value=_heads,
         holds=lambda model, attention, mlp: attention is None or attention.heads % attention.kv_heads == 0,
         expected="key-value heads that divide the query heads (key-value heads, heads)"),
    Rule(name="experts per token", word="experts_per_token", value=_experts,
         holds=lambda model, attention, mlp: mlp is None or mlp.experts == 0
         or 1 <= mlp.experts_per_token <= mlp.experts,
         expected="at most as many experts per token as there are experts (per token, experts)"),
    Rule(name="rope dims within head dims", word="rope_head_dim",
         value=lambda model, block: block.attention.rope_head_dim if block.attention else None,
         holds=lambda model, attention, mlp: attention is None or attention.rope_head_dim <= attention.head_dim,
         expected="fewer rotary dimensions than the head has"),
    Rule(name="window within reach", word="window", value=_window,
         holds=lambda model, attention, mlp: attention is None or attention.window_tokens >= 0,
         expected="a window of at least one token"),
    Rule(name="head dims", word="head_dim",
         value=lambda model, block: block.attention.head_dim if block.attention else None,
         holds=lambda model, attention, mlp: attention is None or 1 <= attention.head_dim <= 65_536,
         expected="a head of 1 to 65,536 dimensions"),
    Rule(name="hidden width", word="hidden", value=lambda model, block: model.hidden,
         holds=lambda model, attention, mlp: 1 <= model.hidden <= 10**7,
         expected="a hidden width of 1 to 10,000,000"),
    Rule(name="vocabulary", word="vocab", value=lambda model, block: model.vocab,
         holds=lambda model, attention, mlp: 1 <= model.vocab <= 10**8,
         expected="a vocabulary of 1 to 100,000,000 tokens"),
)


def refuse_illegal(model: Model, spelled: Callable[[str], str], file: str) -> None:
    """Raise BadInput for the first rule of LEGALITY that `model` breaks; `spelled`: our word to the file's key."""
    for block in model.blocks:
        for rule in LEGALITY:
            if not rule.holds(model, block.attention, block.mlp):
                raise BadInput(file=file, field=spelled(rule.word), value=rule.value(model, block),
                               expected=rule.expected, remedy=f"Rule broken: {rule.name}. Correct the config.")
