"""Managed workloads: the command of a job that names a model instead, written by `emit`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from serried.control.job_form import JobForm, WorkloadForm
from serried.emit.engines import ENGINES
from serried.emit.torchtitan import torchtitan_arguments
from serried.errors import BadInput, nearest
from serried.fabric import read_fleet
from serried.planner.space import layouts_of
from serried.planner.spec import FORMATS
from serried.serving import LEGALITY, Deployments, deployment, serving_machine
from serried.serving.cluster import PoolPlan
from serried.serving.profile import read_engine
from serried.serving.spec import CACHE_FORMATS
from serried.software import stack_for
from serried.workload import Model, Training, read_model
from serried.workload.spec import Serving

__all__ = ["written"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+/ -]{0,199}")
_DEGREES = ("tp", "pp", "ep", "attention_dp")


def written(form: JobForm, *, file: str = "") -> JobForm:
    """The form with the command of its workload in place of it; itself where it names none. Raises BadInput."""
    work = form.workload
    if work is None:
        return form
    if form.command:
        raise BadInput(file=file, field="workload", value=work.serve or work.train, expected="a command or a workload",
                       remedy="Leave one of them out; workload.arguments adds words to what serried writes.")
    if (work.serve is None) == (work.train is None):
        raise BadInput(file=file, field="workload", value=work.serve, expected="exactly one of serve and train",
                       remedy='Write for example serve = "Qwen/Qwen3-8B".')
    try:
        return _serving(form, work) if work.serve else _training(form, work)
    except BadInput as error:   # of rooms below, which know neither file nor field of the job
        if error.field.startswith("workload"):
            raise BadInput(file=file, field=error.field, value=error.value, expected=error.expected,
                           remedy=error.remedy) from None
        raise BadInput(file=file, field=f"workload.{error.field.removeprefix('--')}", value=error.value,
                       expected=error.expected, remedy=error.remedy) from None


def _serving(form: JobForm, work: WorkloadForm) -> JobForm:
    """One replica of a serving engine: one worker with all of its chips, on one node."""
    model = read_model(_named("serve", work.serve))
    _choice("workload.weights", work.weights, FORMATS)
    _choice("workload.cache", work.cache, tuple(CACHE_FORMATS))
    degrees: dict[str, Any] = {}
    for name, value in work.layout.items():
        if name not in _DEGREES or isinstance(value, (bool, str)) or not 1 <= value <= 4096:
            raise BadInput(field=f"workload.layout.{name}", value=value, expected="a degree from 1 on",
                           remedy=f"Degrees: {', '.join(_DEGREES)}. Submit a job for each replica.")
        degrees[name] = value
    row = deployment(weight_format=work.weights, cache_format=work.cache, **degrees)
    chip_count = int(row.chips_per_replica[0])
    pool = read_fleet(f"{_named('chip', work.chip)}:{chip_count}").pools[0]
    if pool.fabric.node_size and chip_count > pool.fabric.node_size:
        raise BadInput(field="workload.layout", value=chip_count, expected=f"at most the {pool.fabric.node_size} chips "
                       "of one node", remedy="Use smaller degrees; an engine over several nodes has no one command.")
    profile = read_engine(work.engine)
    machine = serving_machine(pool, stack_for(pool.chip.family, "serving", profile.stack))
    _refuse_illegal(model, PoolPlan(machine=machine, row=row, profile=profile), row)
    engine = ENGINES[work.engine]
    words = [part.format(model=model.name) for part in engine.command] + engine.words(
        model.name, "serve", PoolPlan(machine=machine, row=row, profile=profile), port=work.port,
        context_tokens=work.context)
    return form.model_copy(update={
        "command": [*words, *work.arguments], "workload": None, "workers": 1, "chips_per_worker": chip_count,
        "chips": form.chips or [str(work.chip)], "written_for": f"serve {model.name} with {work.engine}, "
        f"{_said(work) or 'one chip'}"})


def _refuse_illegal(model: Model, plan: PoolPlan, row: Deployments) -> None:
    job = Serving(model=model, input_tokens=1, output_tokens=1, concurrency=1)
    for rule in LEGALITY:
        if rule.name not in ("chips", "requests") and not np.all(rule.holds(job, plan.machine, row)):
            raise BadInput(field="workload.layout", value=rule.name, expected="a layout that keeps the rules",
                           remedy=rule.sentence)


def _training(form: JobForm, work: WorkloadForm) -> JobForm:
    """torchtitan, one rank a chip; the rendezvous is the engine's, so that torchrun is not needed."""
    model = read_model(_named("train", work.train))
    layout = layouts_of([dict(work.layout)]).row(0)
    tp, cp, pp, micro = (int(layout[name]) for name in ("tp", "cp", "pp", "micro_batch"))
    axes, micro = tp * cp * pp, max(micro, 1)
    if axes < 1 or form.workers % axes:
        raise BadInput(field="workload.layout", value=_said(work), expected=f"tp x cp x pp that divides the "
                       f"{form.workers} workers", remedy="Change a degree, or `workers` (one a chip).")
    data = form.workers // axes
    if not work.global_batch or work.global_batch % (data * micro):
        raise BadInput(field="workload.global_batch", value=work.global_batch, expected="sequences of a step, a "
                       f"multiple of {data} data-parallel ranks times a micro-batch of {micro}",
                       remedy=f"Write for example {data * max(layout['micro_batch'], 1) * 8}.")
    job = Training(model=model, sequence_tokens=work.sequence, global_batch_sequences=work.global_batch)
    words = ["python", "-m", "torchtitan.train", *torchtitan_arguments(job, layout, chip_count=form.workers)]
    return form.model_copy(update={
        "command": [*words, *work.arguments], "workload": None, "chips_per_worker": 1,
        "written_for": f"train {model.name} with torchtitan, {_said(work) or 'data parallel'}"})


def _said(work: WorkloadForm) -> str:
    return ", ".join(f"{name}={value}" for name, value in work.layout.items())


def _named(field: str, name: str | None) -> str:
    """A name of the catalogue. Paths are refused: a request over HTTP must not read files of this machine."""
    if not name or not _NAME.fullmatch(name) or name.endswith((".json", ".toml")) or Path(name).exists():
        raise BadInput(field=f"workload.{field}", value=name, expected="a name of the catalogue",
                       remedy="`serried catalogue` lists chips and models.")
    return name


def _choice(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise BadInput(field=field, value=value, expected=f"one of {', '.join(known)}",
                       remedy=f"Perhaps {' or '.join(nearest(value, known, count=2)) or known[0]} is meant.")
