from dataclasses import replace
from typing import Any

import pytest

from serried.errors import BadInput
from serried.workload import Model
from serried.workload.legality import LEGALITY, refuse_illegal
from tests.workload.models import EVERY, LATENT, MIXTURE, model


def broken(part: str, **changes: Any) -> Model:
    """The latent mixture with a figure changed behind the reader's back."""
    whole = model(LATENT)
    if part == "model":
        return replace(whole, **changes)
    block = whole.blocks[-1]
    return replace(whole, blocks=(replace(block, **{part: replace(getattr(block, part), **changes)}),))


BREAKS = {
    "kv heads divide heads": broken("attention", kv_heads=3),
    "experts per token": broken("mlp", experts_per_token=0),
    "rope dims within head dims": broken("attention", rope_head_dim=64),
    "window within reach": broken("attention", window_tokens=-1),
    "head dims": broken("attention", head_dim=10**6),
    "hidden width": broken("model", hidden=0),
    "vocabulary": broken("model", vocab=10**9),
}


@pytest.mark.parametrize("rule", LEGALITY, ids=lambda rule: rule.name)
def test_each_rule_is_broken_by_something_and_says_so(rule: Any) -> None:
    with pytest.raises(BadInput, match=rule.name) as refused:
        refuse_illegal(BREAKS[rule.name], lambda word: f"key of {word}", "some/config.json")
    assert refused.value.field == f"key of {rule.word}"
    assert refused.value.file == "some/config.json"


@pytest.mark.parametrize("name", EVERY)
def test_what_exists_is_legal(name: str) -> None:
    refuse_illegal(model(EVERY[name]), str, "")


def test_a_single_expert_is_legal() -> None:
    refuse_illegal(model(MIXTURE, num_experts=1, num_experts_per_tok=1), str, "")
