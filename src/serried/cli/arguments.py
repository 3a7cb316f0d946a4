"""Words of the command line as nouns: jobs, `tp=8,pp=4`, pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from serried.compiler import ENGINE_FORMAT
from serried.errors import BadInput, nearest
from serried.fabric import Fabric, Pool, read_collectives, read_fabric, read_fleet
from serried.topology import read_topology
from serried.topology.fitted import fitted_profile
from serried.topology.reduction import reduced_fabric
from serried.topology.tables import is_topology
from serried.workload import Model, Serving, Training, serving_of, training_of

__all__ = ["check_format", "one_pool", "parse_job", "parse_pins"]

def parse_job(model: Model, train: str | None, serve: str | None) -> Training | Serving:
    """Exactly one of --train and --serve."""
    if train and not serve:
        return training_of(train, model, field="--train")
    if serve and not train:
        return serving_of(serve, model, field="--serve")
    raise BadInput(field="--train / --serve", value=train or serve, expected="exactly one of the two",
                   remedy="Say --train 8192x1024 or --serve 512/128@64.")


def parse_pins(text: str | None, known: Sequence[str]) -> dict[str, Sequence[object]]:
    """`tp=8,pp=4|8,recompute=full`: choices pinned to one or several values each."""
    pins: dict[str, Sequence[object]] = {}
    for part in filter(None, (text or "").split(",")):
        name, _, values = part.partition("=")
        if name.strip() not in known or not values:
            raise BadInput(field="--pin", value=part, expected="NAME=VALUE[|VALUE]",
                           remedy=f"Names: {', '.join(known)}.")
        pins[name.strip()] = [int(value) if value.lstrip("-").isdigit() else value for value in values.split("|")]
    return pins


def check_format(pool: Pool, number_format: str, field: str) -> None:
    """BadInput when the chip's engines cannot run the recipe; bf16 is what a chip without it replaces by fp16."""
    if number_format not in ENGINE_FORMAT:
        raise BadInput(field=field, value=number_format, expected=f"one of {', '.join(ENGINE_FORMAT)}",
                       remedy=f"Nearest: {', '.join(nearest(number_format, ENGINE_FORMAT)) or 'bf16'}.")
    has, wanted = pool.chip.number_formats, ENGINE_FORMAT[number_format]
    if has and wanted not in has and number_format != "bf16":
        raise BadInput(field=field, value=number_format, expected=f"a format of {pool.chip.name}'s engines: "
                       f"{', '.join(has)}", remedy="Choose one of them, or add its peak to a copy of the chip file.")


def one_pool(text: str, field: str, *, collectives: str | None = None) -> Pool:
    """The single pool of a fleet; BadInput for a fleet that mixes chips, since one job runs on equal chips.

    collectives: the collective profile that drives its fabric instead of the fabric's own, by name or path; "fitted"
    = its own with the algorithms that it lacks. A pool's fabric may be a topology file: its wires become tiers.
    """
    fleet = read_fleet(text, _fabric)
    if len(fleet.pools) != 1:
        names = ", ".join(f"{pool.chip.name}:{pool.chip_count}" for pool in fleet.pools)
        raise BadInput(field=field, value=text, expected="a fleet of equal chips for one job",
                       remedy=f"Name one of its pools: {names}.")
    pool = fleet.pools[0]
    if collectives is None:
        return pool
    if collectives == "fitted":
        return replace(pool, fabric=replace(pool.fabric, profile=fitted_profile(pool.fabric.profile)))
    return replace(pool, fabric=replace(pool.fabric, profile=read_collectives(collectives)))


def _fabric(name_or_path: str) -> Fabric:
    """A fabric of the catalogue or of a file, tiers or topology."""
    if name_or_path.endswith(".toml") and is_topology(name_or_path):
        return reduced_fabric(read_topology(name_or_path))
    return read_fabric(name_or_path)
