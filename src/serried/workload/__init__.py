"""What is computed?

In: a model's `config.json` or catalogue file, and a job. Out: a `Model`, its parameter count, and the operators that
one block asks of one chip, forward and backward, in training, prefill and decode, with shapes as columns.
"""

from serried.workload.architectures import ARCHITECTURES, Architecture
from serried.workload.attention import causal_pairs
from serried.workload.config import model_of_config, model_of_dimensions, read_model, with_layers
from serried.workload.flops import attend_flop, forward_flop_per_token, model_flop, operator_flop
from serried.workload.head import embedding_operators, head_operators, head_workspace_bytes
from serried.workload.memory import KeptTensor, activation_bytes, cache_bytes, kept_tensors, kv_bytes_per_token
from serried.workload.operators import RECOMPUTED, block_operators, prediction_operators, recomputed_operators
from serried.workload.optimizer import accumulation_operators, optimizer_operators
from serried.workload.parameters import ChipParameters, Parameters, chip_parameters, parameters
from serried.workload.spec import (
    Attend,
    AttentionKind,
    AttentionSpec,
    Block,
    Elementwise,
    Exchange,
    Floats,
    Gemm,
    GroupedGemm,
    MlpSpec,
    Model,
    Operator,
    Phase,
    Serving,
    Shards,
    Training,
)
from serried.workload.words import serving_of, training_of

__all__ = [
    "ARCHITECTURES", "RECOMPUTED", "Architecture", "Attend", "AttentionKind", "AttentionSpec", "Block",
    "ChipParameters", "Elementwise", "Exchange", "Floats", "Gemm", "GroupedGemm", "KeptTensor", "MlpSpec", "Model",
    "Operator", "Parameters", "Phase", "Serving", "Shards", "Training", "accumulation_operators", "activation_bytes",
    "attend_flop", "block_operators", "cache_bytes", "causal_pairs", "chip_parameters", "embedding_operators",
    "forward_flop_per_token", "head_operators", "head_workspace_bytes", "kept_tensors", "kv_bytes_per_token",
    "model_flop", "model_of_config", "model_of_dimensions", "operator_flop", "optimizer_operators", "parameters",
    "prediction_operators", "read_model", "recomputed_operators", "serving_of",
    "training_of", "with_layers",
]
