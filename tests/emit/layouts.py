"""Layouts by hand, as `Layouts.row` gives them."""

PLAIN = {"tp": 1, "cp": 1, "pp": 1, "ep": 1, "expert_tp": 1, "virtual_stages": 1, "micro_batch": 1, "sharding": 1,
         "recompute": "none", "schedule": "1f1b", "number_format": "bf16", "sequence_parallel": True,
         "overlap_data": True, "overlap_tensor": False}


def layout(**changes):
    """A plain layout with some choices changed."""
    assert set(changes) <= set(PLAIN)
    return PLAIN | changes
