"""What the simulator refuses to begin with: columns that contradict themselves, engines that can never compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from serried.engine.spec import Cluster, EnginePool
from serried.errors import BadInput
from serried.traffic.spec import Requests

__all__ = ["CLUSTER_RULES", "POOL_RULES", "REQUEST_RULES", "Rule", "refuse_illegal"]


Subject = TypeVar("Subject")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Generic[Subject]):
    """`holds` is true of what is legal; the rest says what was broken and what would mend it."""

    field: str
    holds: Callable[[Subject], bool]
    expected: str
    remedy: str


def _previous_is_earlier(requests: Requests) -> bool:
    before_R = requests.previous_R
    return len(before_R) in (0, len(requests)) and bool((before_R < np.arange(len(before_R))).all())


def _hashes_are_whole(requests: Requests) -> bool:
    start_R = requests.block_start_R
    return not requests.hash_block_tokens or bool(
        len(start_R) == len(requests) + 1 and start_R[0] >= 0 and (np.diff(start_R) >= 0).all()
        and start_R[-1] <= len(requests.block_hash_H))


REQUEST_RULES: tuple[Rule[Requests], ...] = (
    Rule(field="arrival_ns_R", expected="times from 0 on, in order where the loop is open",
         remedy="Sort the requests by arrival.",
         holds=lambda of: bool((of.arrival_ns_R >= 0).all()
                               and (of.in_flight or (np.diff(of.arrival_ns_R) >= 0).all()))),
    Rule(field="input_tokens_R", expected="at least 1 token in each request, one entry a request",
         remedy="Leave empty requests out.",
         holds=lambda of: len(of.input_tokens_R) == len(of) and bool((of.input_tokens_R >= 1).all())),
    Rule(field="output_tokens_R", expected="at least 1 token in each request, one entry a request",
         remedy="Leave requests without an answer out.",
         holds=lambda of: len(of.output_tokens_R) == len(of) and bool((of.output_tokens_R >= 1).all())),
    Rule(field="previous_R", expected="an earlier request, or -1", remedy="Sort the requests by arrival.",
         holds=_previous_is_earlier),
    Rule(field="think_ns_R", expected="0 or more, one entry a request, or none at all",
         remedy="Give 0 where nobody thinks.",
         holds=lambda of: len(of.think_ns_R) in (0, len(of)) and bool((of.think_ns_R >= 0).all())),
    Rule(field="block_start_R", expected="ascending offsets into the hashes, one more than requests",
         remedy="Leave the hashes out to do without them.", holds=_hashes_are_whole),
    Rule(field="in_flight", expected="0 or more", remedy="0 is an open loop.", holds=lambda of: of.in_flight >= 0))

POOL_RULES: tuple[Rule[EnginePool], ...] = (
    Rule(field="count", expected="at least 1 engine", remedy="Leave the pool out.", holds=lambda of: of.count >= 1),
    Rule(field="max_sequences", expected="at least 1", remedy="One request must be able to run.",
         holds=lambda of: of.engine.settings.max_sequences >= 1),
    Rule(field="token_budget", expected="at least 1", remedy="One token must be able to be computed.",
         holds=lambda of: of.engine.settings.token_budget >= 1),
    Rule(field="block_tokens", expected="at least 1", remedy="16 is the usual size.",
         holds=lambda of: of.engine.settings.block_tokens >= 1),
    Rule(field="groups", expected="at least 1", remedy="1 is an engine without data-parallel attention.",
         holds=lambda of: of.engine.groups >= 1),
    Rule(field="stages", expected="at least 1", remedy="1 is an engine without a pipeline.",
         holds=lambda of: of.engine.step_time.stages >= 1),
    Rule(field="kv_blocks", expected="0 or more", remedy="Take fewer weights per chip, or more chips.",
         holds=lambda of: of.engine.kv_blocks >= 0))

CLUSTER_RULES: tuple[Rule[Cluster], ...] = (
    Rule(field="transfer", expected="wires where there is a prefill pool, and only there",
         remedy="Give both or neither.", holds=lambda of: (of.prefill is None) == (of.transfer is None)),
    Rule(field="transfer", expected="wires that move something", remedy="Give bandwidths above 0 bytes/s.",
         holds=lambda of: of.transfer is None or min(of.transfer.send_bytes_per_s, of.transfer.receive_bytes_per_s,
                                                     of.transfer.total_bytes_per_s) > 0))


def refuse_illegal(requests: Requests, cluster: Cluster) -> None:
    """Raise BadInput for the first rule that is broken."""
    _refuse(REQUEST_RULES, requests)
    _refuse(CLUSTER_RULES, cluster)
    for pool in (cluster.prefill, cluster.serve):
        if pool is not None:
            _refuse(POOL_RULES, pool)


def _refuse(rules: tuple[Rule[Subject], ...], subject: Subject) -> None:
    for rule in rules:
        if not rule.holds(subject):
            raise BadInput(field=rule.field, value=_found(subject, rule.field), expected=rule.expected,
                           remedy=rule.remedy)


def _found(subject: object, field: str) -> object:
    if isinstance(subject, EnginePool):
        for owner in (subject, subject.engine, subject.engine.settings, subject.engine.step_time):
            if hasattr(owner, field):
                return getattr(owner, field)
    found = getattr(subject, field)
    return found.tolist()[:8] if isinstance(found, np.ndarray) else found
