"""Small loads and questions for the tests of the search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from serried.fabric import read_fleet
from serried.serving import serving_machine
from serried.serving.candidates import Space
from serried.serving.objectives import parse_objectives
from serried.serving.profile import read_engine
from serried.serving.traffic_search import Question
from serried.traffic import Requests, open_loop, poisson, stream
from serried.workload import read_model


def load(rate_per_s: float = 4.0, count: int = 60, seed: int = 1, *, longest: int = 2000) -> Requests:
    random = stream(seed, 9)
    return open_loop(poisson(rate_per_s, count, stream(seed, 0)), random.integers(20, longest, count),
                     random.integers(1, 80, count))


def hashed(requests: Requests, seed: int, size: int = 128) -> Requests:
    """The same requests with prompts that begin alike now and then."""
    random, starts, hashes = np.random.default_rng(seed), [0], []
    for number, tokens in enumerate(requests.input_tokens_R.tolist()):
        whole = tokens // size
        alike = int(random.integers(0, whole + 1))
        hashes += list(range(alike)) + [10_000 * (number + 1) + block for block in range(whole - alike)]
        starts.append(len(hashes))
    return replace(requests, block_start_R=np.array(starts), block_hash_H=np.array(hashes, dtype=np.int64),
                   hash_block_tokens=size)


def question(fleet: str = "h100:4", slo: str = "ttft=2s,tpot=60ms", *, model: str = "Qwen3-8B",
             requests: Requests | None = None, engine: str = "vllm", **changes: object) -> Question:
    ask = Question(model=read_model(model), machines=[serving_machine(pool) for pool in read_fleet(fleet).pools],
                   profile=read_engine(engine), requests=load() if requests is None else requests,
                   objectives=parse_objectives(slo), space=Space(max_sequences=(0, 16), token_budgets=(0, 1024)),
                   glimpses=24, trials=8)
    return replace(ask, **changes)
