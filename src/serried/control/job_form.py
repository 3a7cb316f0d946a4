"""The door through which jobs come, from a file or over HTTP: what may be said of one, and what is wrong with it.

Quantities come with their units ("10 s", "2 GiB"); a bare number is in s or bytes. Nothing is guessed: an unknown field
is refused with the names that look like it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, StringConstraints, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails, PydanticCustomError

from serried.control.spec import Health, JobSpec, Topology
from serried.errors import BadInput, nearest
from serried.runners import Limits
from serried.units import parse_quantity

__all__ = ["JobForm", "WorkloadForm", "form_of", "read_form", "spec_of"]


def _quantity(unit: str, most: float, example: str) -> tuple[PlainValidator, WithJsonSchema]:
    """What makes a field a quantity of `unit`, from 0 to `most`."""
    def check(value: object) -> float:
        try:
            found = parse_quantity(value, unit) if isinstance(value, (str, int, float)) else -1.0
        except BadInput:
            found = -1.0
        if not 0 <= found <= most:
            raise PydanticCustomError("quantity", "a quantity from 0 on, with its unit", {"example": example})
        return found

    return PlainValidator(check), WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}],
                                                  "examples": [example]})


Seconds = Annotated[float, *_quantity("s", 1e9, "10 s")]   # in ns it has to fit beside a date
Bytes = Annotated[float, *_quantity("bytes", 2.0**60, "2 GiB")]
#: What a program can be given: no NUL, which ends every string of the operating system.
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
Word = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Variable = Annotated[str, StringConstraints(max_length=200, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
#: The fleet's books count the workers of a gang in 16 bits.
_MOST_WORKERS = 32_000
Workers = Annotated[int, Field(ge=0, le=_MOST_WORKERS)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class TopologyForm(_Form):
    """Where the gang stands."""

    level: Word | None = Field(default=None, description="name of a switch level to stay under")
    required: bool = Field(default=False, description="whether it must (true) or should stay there")
    island_workers: Workers = Field(default=0, description="consecutive ranks that share an innermost switch; 0 = free")
    spread_level: Word | None = Field(default=None, description="name of a switch level to spread over")
    spread_workers: Workers = Field(default=0, description="no switch of that level holds more ranks; 0 = free")


class HealthForm(_Form):
    """When the gang is taken to hang."""

    heartbeat: Seconds = Field(default=0.0, description="longest silence of a rank in $SERRIED_HEARTBEAT; 0 = any")
    start: Seconds = Field(default=600.0, description="the same until the first beat")
    straggler_ratio: float = Field(default=1.5, ge=1, le=1000, description="a straggler's work a step, over the median")


class LimitsForm(_Form):
    """What each rank may take of its machine."""

    open_files: int = Field(default=0, ge=0, le=2**31, description="open files; 0 = the machine's limit")
    memory: Bytes = Field(default=0.0, description="address space; 0 = no limit")
    core: Bytes = Field(default=0.0, description="size of a core file")


class WorkloadForm(_Form):
    """A command that serried writes: a model to serve or to train."""

    serve: Word | None = Field(default=None, description="model to serve; or")
    train: Word | None = Field(default=None, description="model to train with torchtitan")
    engine: Literal["vllm", "sglang"] = Field(default="vllm", description="what serves it")
    chip: Word | None = Field(default=None, description="of the catalogue, to serve it on")
    layout: dict[Word, int | bool | Word] = Field(default={}, description="degrees, named as in `plan --pin`: tp, ...")
    weights: Word = Field(default="bf16", description="number format of served weights")
    cache: Word = Field(default="bf16", description="number format of the KV cache")
    context: int = Field(default=8192, ge=1, le=2**31, description="longest request, in tokens")
    port: int = Field(default=8000, ge=1, le=65_535, description="where it listens")
    sequence: int = Field(default=8192, ge=1, le=2**31, description="tokens of a training sequence")
    global_batch: int = Field(default=0, ge=0, le=2**31, description="sequences of a training step")
    arguments: list[Text] = Field(default=[], description="more words for the program, as they are")


class JobForm(_Form):
    """A job as people write it (docs/job-file.md)."""

    name: Word | None = Field(default=None, description="what people call it; default: of the file or program")
    command: list[Text] = Field(default=[], description="a program and its words, once a worker")
    workload: WorkloadForm | None = Field(default=None, description="instead of a command: serried writes one")
    written_for: str = Field(default="", description="what a written command was asked for")
    workers: int = Field(default=1, ge=1, le=_MOST_WORKERS, description="ranks of the gang")
    chips_per_worker: int = Field(default=1, ge=1, le=64, description="chips of each")
    chips: list[Word] = Field(default=[], description="kinds of chip that will do; empty = any")
    share: float = Field(default=1.0, gt=0, le=1, description="of one chip; below 1 for one worker of one chip")
    cpus: float = Field(default=0.0, ge=0, le=10_000, description="CPU cores of each worker")
    memory: Bytes = Field(default=0.0, description="of each worker")
    tenant: Word | None = Field(default=None, description="who pays; default: the first tenant")
    priority: int = Field(default=0, ge=-30_000, le=30_000, description="more goes first")
    preemptible: bool = Field(default=True, description="whether a job of more priority may push it out")
    topology: TopologyForm = Field(default=TopologyForm(), description="where the gang stands")
    directory: Text = Field(default="", description="where ranks start; relative to the job file; default: its folder")
    environment: dict[Variable, Text] = Field(default={}, description="variables of every rank")
    checkpoint_directory: Text = Field(default="", description="$SERRIED_CHECKPOINT; relative to `directory`")
    retries: Count = Field(default=3, description="restarts after the job's own failures; failed nodes do not count")
    backoff: Seconds = Field(default=1.0, description="before the first of them; doubled every time")
    grace: Seconds = Field(default=10.0, description="from SIGTERM to SIGKILL")
    runtime: Seconds = Field(default=0.0, description="what is expected of it; 0 = unknown")
    health: HealthForm = Field(default=HealthForm(), description="when the gang is taken to hang")
    limits: LimitsForm = Field(default=LimitsForm(), description="what each rank may take of its machine")


def read_form(said: bytes | Mapping[str, Any], *, file: str = "") -> JobForm:
    """A form from JSON text or from what a file holds. Raises BadInput for the first thing that is wrong."""
    try:
        if isinstance(said, bytes):
            return JobForm.model_validate_json(said)
        return JobForm.model_validate(said)
    except ValidationError as error:
        raise _explained(error.errors(include_url=False)[0], file) from None


def spec_of(form: JobForm, *, file: str = "", folder: str = "") -> JobSpec:
    """The submission that a form asks for, its workload's command written already.

    folder: what relative directories are relative to; "" = they are refused. Raises BadInput.
    """
    if not form.command or not form.command[0].strip():
        raise BadInput(file=file, field="command", value=form.command or None, expected="a program and its arguments",
                       remedy='Write for example command = ["python", "train.py"], or a [workload].')
    if form.share < 1 and (form.workers, form.chips_per_worker) != (1, 1):
        raise BadInput(file=file, field="share", value=form.share, expected="1 for a gang of several chips",
                       remedy="Only one worker of one chip can share it.")
    if form.topology.required and not form.topology.level:
        raise BadInput(file=file, field="topology.required", value=True, expected="a level to stay under",
                       remedy="Give topology.level, or leave `required` out.")
    if bool(form.topology.spread_workers) != bool(form.topology.spread_level):
        raise BadInput(file=file, field="topology.spread_workers", value=form.topology.spread_workers,
                       expected="spread_level and spread_workers together", remedy="Give both, or neither.")
    if form.topology.island_workers and form.workers % form.topology.island_workers:
        raise BadInput(file=file, field="topology.island_workers", value=form.topology.island_workers,
                       expected=f"a divisor of the gang's {form.workers} workers", remedy="Islands are of one size.")
    directory = _directory(form.directory, folder, "directory", file)
    checkpoints = _directory(form.checkpoint_directory, directory, "checkpoint_directory", file) \
        if form.checkpoint_directory else ""
    where, health, limits = form.topology, form.health, form.limits
    return JobSpec(
        name=form.name or PurePosixPath(form.command[0]).name or "job", argv=tuple(form.command), workers=form.workers,
        chips_per_worker=form.chips_per_worker, chips=tuple(form.chips), share=form.share, cpu_cores=form.cpus,
        memory_bytes=int(form.memory), tenant=form.tenant or "", priority=form.priority, preemptible=form.preemptible,
        topology=Topology(level=where.level or "", required=where.required, island_workers=where.island_workers,
                          spread_level=where.spread_level or "", spread_workers=where.spread_workers),
        directory=directory, environment=dict(form.environment), checkpoint_directory=checkpoints, retries=form.retries,
        backoff_s=form.backoff, grace_s=form.grace, runtime_s=form.runtime,
        health=Health(heartbeat_s=health.heartbeat, start_s=health.start, straggler_ratio=health.straggler_ratio),
        limits=Limits(open_files=limits.open_files, memory_bytes=int(limits.memory), core_bytes=int(limits.core)),
        workload=form.written_for)


def form_of(spec: JobSpec) -> dict[str, Any]:
    """What a form says of a submission, as JSON knows it; `spec_of` makes the same submission of it."""
    where, health, limits = spec.topology, spec.health, spec.limits
    return {
        "name": spec.name, "command": list(spec.argv), "workers": spec.workers,
        "chips_per_worker": spec.chips_per_worker, "chips": list(spec.chips), "share": spec.share,
        "cpus": spec.cpu_cores, "memory": spec.memory_bytes, "tenant": spec.tenant or None, "priority": spec.priority,
        "preemptible": spec.preemptible,
        "topology": {"level": where.level or None, "required": where.required, "island_workers": where.island_workers,
                     "spread_level": where.spread_level or None, "spread_workers": where.spread_workers},
        "directory": spec.directory, "environment": dict(spec.environment),
        "checkpoint_directory": spec.checkpoint_directory, "retries": spec.retries, "backoff": spec.backoff_s,
        "grace": spec.grace_s, "runtime": spec.runtime_s,
        "health": {"heartbeat": health.heartbeat_s, "start": health.start_s, "straggler_ratio": health.straggler_ratio},
        "limits": {"open_files": limits.open_files, "memory": limits.memory_bytes, "core": limits.core_bytes},
        "written_for": spec.workload}


def _directory(text: str, folder: str, field: str, file: str) -> str:
    path = PurePosixPath(text) if text else PurePosixPath(folder) if folder else None
    if path is None:
        return ""
    if not path.is_absolute():
        if not folder:
            raise BadInput(file=file, field=field, value=text, expected="an absolute path",
                           remedy="Only a job file has a folder that paths can be relative to.")
        path = PurePosixPath(folder) / path
    return str(path)


def _explained(error: ErrorDetails, file: str) -> BadInput:
    """What pydantic found, in our own words."""
    if error["type"] == "json_invalid":
        return BadInput(file=file, field="body", value="", expected="a job as JSON", remedy=error["msg"] + ".")
    where = [part for part in error["loc"] if part != "[key]"]
    name, value = ".".join(str(part) for part in where) or "job", error["input"]
    if error["loc"][-1:] == ("[key]",):
        return BadInput(file=file, field=name.rpartition(".")[0] or "job", value=_short(value), expected="a name of "
                        "letters, digits and underscores", remedy="Correct the name.")
    if error["type"] == "extra_forbidden":
        return BadInput(file=file, field=name, value=_short(value), expected="a field that is known",
                        remedy=_nearest(where))
    if where[:1] == ["command"] and isinstance(value, str) and len(where) == 1:
        return BadInput(file=file, field=name, value=_short(value), expected="a list of words, since no shell reads it",
                        remedy=f"Write command = {_words(value)}.")
    context = error.get("ctx", {})
    remedy = f"Write for example {json.dumps(context['example'])}." if error["type"] == "quantity" else _REMEDIES.get(
        error["type"], "Correct the value.")
    return BadInput(file=file, field=name, value=_short(value), expected=_lower(error["msg"]), remedy=remedy)


_REMEDIES = {
    "string_pattern_mismatch": "Leave out what is not allowed there: blanks and signs in names, NUL anywhere.",
    "bool_type": "Write true or false.", "string_type": "Put it in quotes.", "int_type": "Write it without quotes.",
    "float_type": "Write it without quotes.", "list_type": "Write a list: [..., ...].", "dict_type": "Write a table.",
    "model_type": "Write a table of fields.", "model_attributes_type": "Write a table of fields."}


def _short(value: object) -> object:
    """Enough of a value to know it again."""
    return value if len(text := repr(value)) <= 200 else text[:197] + "..."


def _lower(text: str) -> str:
    text = text.removeprefix("Input should be ").removeprefix("Value error, ")
    return text[:1].lower() + text[1:]


def _words(line: str) -> str:
    try:
        return json.dumps(shlex.split(line))
    except ValueError:   # quotes that do not close
        return json.dumps(line.split())


_FORMS: Mapping[str, type[BaseModel]] = {"": JobForm, "topology": TopologyForm, "health": HealthForm,
                                         "limits": LimitsForm, "workload": WorkloadForm}


def _nearest(where: Sequence[int | str]) -> str:
    """The known fields that look most like the last of `where`."""
    form = _FORMS.get(".".join(str(part) for part in where[:-1]), JobForm)
    near = nearest(str(where[-1]), form.model_fields, count=2)
    elsewhere = [f"{table}.{where[-1]}" for table, other in _FORMS.items() if table and other is not form
                 and where[-1] in other.model_fields]
    if elsewhere or near:
        return f"Perhaps {' or '.join((elsewhere + near)[:2])} is meant."
    return f"Known: {', '.join(form.model_fields)}."
