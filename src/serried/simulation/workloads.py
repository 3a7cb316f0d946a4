"""What a class of jobs or a service computes, where a scenario says so: a model, and how it is trained or served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serried.errors import BadInput
from serried.fabric import Pool, read_fabric
from serried.silicon import Chip
from serried.workload import Model, Serving, Training, read_model, serving_of, training_of

__all__ = ["pool_of", "workload_of"]


def workload_of(table: Mapping[str, Any], where: str, file: str) -> Training | Serving | None:
    """The job of a table's `model` and `train` or `serve`; None where no model is named."""
    model, train, serve = table["model"], table.get("train", ""), table["serve"]
    if not model:
        if train or serve:
            raise BadInput(file=file, field=f"{where}.model", value=None, expected="the model that is meant",
                           remedy="Name it, or leave train and serve out.")
        return None
    if bool(train) == bool(serve):
        raise BadInput(file=file, field=f"{where}.train / serve", value=train or None,
                       expected="how the model is trained, or how it is served, and not both",
                       remedy='Say train = "8192x1024" or serve = "512/128@64".' if "train" in table else
                       'Say serve = "512/128@64".')
    found = _model(model, where, file)
    return (training_of(train, found, field=f"{where}.train", file=file) if train else
            serving_of(serve, found, field=f"{where}.serve", file=file))


def pool_of(chip: Chip, fabric: str, count: int, where: str, file: str) -> Pool:
    """So many chips on a fabric, their own where none is named, as the planner wants them."""
    if not fabric and not chip.fabric:
        raise BadInput(file=file, field=f"{where}.fabric", value=None, expected="a fabric that the planner can take",
                       remedy=f"{chip.name} names none of its own: `serried catalogue fabrics` lists those there are.")
    wires = read_fabric(fabric or chip.fabric)
    node = wires.node_size
    if node and count > node and count % node:
        raise BadInput(file=file, field=f"{where}.fabric", value=wires.name,
                       expected=f"a fabric on which {count} chips fill whole nodes, and its nodes have {node}",
                       remedy="Let node_chips and the sizes of gangs follow the fabric, or name another.")
    return Pool(chip=chip, fabric=wires, chip_count=count)


def _model(name: str, where: str, file: str) -> Model:
    try:
        return read_model(name)
    except BadInput as error:
        raise BadInput(file=file, field=f"{where}.model", value=name, expected=error.expected,
                       remedy=error.remedy) from None
