"""A layout as a torchtitan command line (release 0.3: `--module`, `--config`, then `--section.key value`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serried.errors import BadInput
from serried.workload import Model, Training

__all__ = ["torchtitan_arguments"]

_SCHEDULE = {"1f1b": "1F1B", "interleaved": "Interleaved1F1B", "zero-bubble": "InterleavedZeroBubble"}
_RECOMPUTE = {"none": "none", "selective": "selective", "attention": "selective", "mlp": "selective", "full": "full"}


def torchtitan_arguments(job: Training, layout: Mapping[str, Any], *, chip_count: int) -> list[str]:
    """The words after `torchtitan.train` for one layout (a row of `Layouts.row`) on `chip_count` chips.

    torchtitan takes the architecture from its registry, so the registered flavour is named by family; sequences per
    step, the axes and the recompute follow from the layout. Raises BadInput when torchtitan has no word for it.
    """
    if layout["number_format"] not in ("bf16",):
        raise BadInput(field="number_format", value=layout["number_format"], expected="bf16",
                       remedy="torchtitan's low-precision recipes are registered configs, not flags; pin bf16.")
    data = chip_count // (layout["tp"] * layout["cp"] * layout["pp"])
    sharded = layout["sharding"] == 3
    module, config = _registered(job.model)
    micro, pipelined = layout["micro_batch"], layout["pp"] > 1
    local_batch = job.global_batch_sequences // data if pipelined else micro
    words = {
        "training.local_batch_size": local_batch, "training.global_batch_size": job.global_batch_sequences,
        "training.seq_len": job.sequence_tokens,
        "parallelism.data_parallel_replicate_degree": 1 if sharded else data,
        "parallelism.data_parallel_shard_degree": data if sharded else 1,
        "parallelism.tensor_parallel_degree": layout["tp"], "parallelism.context_parallel_degree": layout["cp"],
        "parallelism.pipeline_parallel_degree": layout["pp"], "parallelism.expert_parallel_degree": layout["ep"],
    }
    if pipelined:
        words |= {"parallelism.pipeline_parallel_schedule": _SCHEDULE[layout["schedule"]],
                  "parallelism.pipeline_parallel_microbatch_size": micro,
                  "parallelism.pipeline_parallel_layers_per_stage":
                      -(-job.model.layer_count // (layout["pp"] * layout["virtual_stages"]))}
    flags = ["--compile.enable"]
    flags += ["--compile.enable_async_tensor_parallel"] if layout["overlap_tensor"] and layout["tp"] > 1 else []
    if pipelined or layout["ep"] > 1:  # captured steps need fixed shapes and no host synchronisation
        flags += ["--training.disable_cuda_graphs"]
    if layout["tp"] > 1 and not layout["sequence_parallel"]:
        flags += ["--parallelism.no-enable_sequence_parallel"]
    return ["--module", module, "--config", config, *(word for key, value in words.items()
                                                      for word in (f"--{key}", str(value))),
            *flags, f"activation-checkpoint:{_RECOMPUTE[layout['recompute']]}"]


def _registered(model: Model) -> tuple[str, str]:
    """Module and config function of torchtitan's registry, from serried's table of its flavours."""
    from serried.catalogue.entry import DATA, fold, read_toml

    table = read_toml(DATA / "emit" / "torchtitan-registry.toml")["registry"]
    name = fold(model.name.rpartition("/")[2])
    for flavour, (module, config) in table.items():
        if fold(flavour) == name:
            return module, config
    raise BadInput(field="model", value=model.name, expected=f"one that torchtitan registers: {', '.join(table)}",
                   remedy="Register the flavour in torchtitan first, or emit megatron.")
