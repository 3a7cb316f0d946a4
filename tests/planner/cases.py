"""A small machine, a small model, a small job: what every planner test stands on."""

from __future__ import annotations

import functools

from serried.fabric import read_fleet
from serried.planner import Machine, machine_of
from serried.software import Stack, perfect_stack
from serried.workload import Block, Model, Training
from serried.workload.spec import AttentionSpec, MlpSpec


@functools.cache
def _pool(fleet: str):
    return read_fleet(fleet).pools[0]


def machine(fleet: str = "h100:16", stack: Stack | None = None) -> Machine:
    return machine_of(_pool(fleet), stack=stack or perfect_stack())


def model(*, layers: int = 8, hidden: int = 1024, heads: int = 16, experts: int = 0, vocab: int = 32768) -> Model:
    attention = AttentionSpec(kind="full", heads=heads, kv_heads=heads // 2, head_dim=64, value_head_dim=64)
    mlp = MlpSpec(width=512 if experts else 4096, gated=True, experts=experts, experts_per_token=2 if experts else 0)
    return Model(name="small", hidden=hidden, vocab=vocab, blocks=(Block(count=layers, attention=attention, mlp=mlp),))


def job(batch: int = 64, sequence: int = 2048, **dimensions: int) -> Training:
    return Training(model=model(**dimensions), sequence_tokens=sequence, global_batch_sequences=batch)
