"""A library that also has the algorithms it lacks: what a schedule of one's own can run on the same wires."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from serried.fabric import CollectiveProfile

__all__ = ["fitted_profile"]

#: Algorithm -> the one whose transport it would use: same protocol, step cost and reach of the wires.
_LIKE: Mapping[str, str] = {"hierarchical": "ring", "halving-doubling": "ring", "bruck": "ring", "pairwise": "direct",
                            "rail-aligned": "direct", "two-level": "direct"}
#: What belongs to the library's own choice or to a ring, and is not transport.
_NOT_TRANSPORT = ("choice", "minimum", "maximum", "lockstep", "launch")


def fitted_profile(profile: CollectiveProfile) -> CollectiveProfile:
    """The profile, with every algorithm it lacks on the parameters of its nearest kin, chosen by predicted time.

    No parameter is new: each is measured (or estimated) on the same wires by another algorithm.
    """
    parameters = {name: value for name, value in profile.parameters.items() if not name.startswith("choice.")}
    for algorithm, kin in _LIKE.items():
        if f"ratio.{algorithm}.simple" in parameters:
            continue
        for name, value in profile.parameters.items():
            family, _, rest = name.partition(".")
            found, _, protocol = rest.partition(".")
            if found == kin and family not in _NOT_TRANSPORT:
                parameters.setdefault(".".join(filter(None, (family, algorithm, protocol))), value)
    return profile if parameters == profile.parameters else replace(profile, name=f"fitted {profile.name}",
                                                                    parameters=parameters)
