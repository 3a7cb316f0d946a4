"""How long a pipeline runs, from the times of its stages.

Axes: K = STAGES, L = layout.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serried.planner.spec import SCHEDULES, Ints
from serried.workload.spec import Floats

__all__ = ["fill_s_L", "pipeline_s_L"]
_ZERO_BUBBLE = SCHEDULES.index("zero-bubble")


def pipeline_s_L(forward_s_KL: Floats, backward_s_KL: Floats, weight_s_KL: Floats, all_s_L: Floats,
                 all_weight_s_L: Floats, *, micro_batches_L: Floats, pp_L: Floats, schedule: Ints,
                 virtual_stages: Floats) -> tuple[NDArray[np.intp], Floats]:
    """(critical stage, its idle seconds): the kind of stage whose work and waiting together last longest.

    forward, backward, weight (part of backward): one micro-batch through a stage of each kind, 0 where there is none;
    all_*: through the whole pipeline. A middle stage that is critical is taken to be the second one.
    """
    own_KL = forward_s_KL + backward_s_KL
    others_KL = np.maximum(all_s_L - own_KL, 0.0)
    zero_L = np.zeros(own_KL.shape[1])
    before_KL = np.stack([zero_L, np.minimum(own_KL[0], others_KL[1]), others_KL[2]])
    position_KL = np.stack([zero_L, zero_L + 1.0, pp_L - 1.0])
    idle_KL = fill_s_L(before_KL, others_KL - before_KL, np.maximum(pp_L - 1.0 - position_KL, 0.0), forward_s_KL,
                       backward_s_KL, np.maximum(all_weight_s_L - weight_s_KL, 0.0), schedule=schedule,
                       virtual_stages=virtual_stages)
    critical_L = np.argmax(np.where(own_KL > 0, micro_batches_L * own_KL + idle_KL, -1.0), axis=0)
    return critical_L, idle_KL[critical_L, np.arange(len(critical_L))]


def fill_s_L(before_s_L: Floats, after_s_L: Floats, after_count_L: Floats, forward_s_L: Floats, backward_s_L: Floats,
             others_weight_s_L: Floats, *, schedule: Ints, virtual_stages: Floats) -> Floats:
    """Idle seconds of the slowest stage while the pipeline fills and drains.

    before_s_L, after_s_L: one micro-batch forward and backward through the stages before and behind the slowest one,
    after_count_L of them behind; forward_s_L, backward_s_L: its own turns; others_weight_s_L: weight gradients of the
    others.
    1F1B: it waits for the stages before it at the start and at the end. The first result from behind comes back after
    after_s, in which it runs after_count forwards ahead; at the end it has as many backwards left to do. With equal
    stages that is (p - 1)(f + b). Interleaving v chunks divides it by v (Narayanan et al. 2021). The zero-bubble
    schedule of the same memory fills it with weight gradients: (p - 1)(f + b_data - b_weight) (Qi et al. 2023, ZB-H1).
    """
    ahead_s = np.maximum(after_s_L - after_count_L * forward_s_L, 0.0)
    left_s = np.maximum(after_s_L - after_count_L * backward_s_L, 0.0)
    idle_s = before_s_L + ahead_s + left_s
    idle_s = np.where(schedule == _ZERO_BUBBLE, np.maximum(idle_s - 2.0 * others_weight_s_L, 0.0), idle_s)
    return np.asarray(idle_s / virtual_stages)
