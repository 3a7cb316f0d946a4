"""Pools of a serving deployment as command lines of vLLM and SGLang, every number from the plan.

A pool is a role ("serve", "prefill" or "decode") and a PoolPlan. Words that a launcher fills in on each node are
written as shell variables: $NODE_RANK, $LEADER.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from serried.emit.documented import check_words
from serried.errors import BadInput
from serried.serving.cluster import PoolPlan

__all__ = ["ENGINES", "Engine", "nodes_of", "router_words", "sglang_words", "vllm_words"]

_VLLM_WEIGHTS = {"bf16": [], "fp16": [], "fp8": ["--quantization", "fp8"]}
_VLLM_CACHE = {"bf16": ["--kv-cache-dtype", "auto"], "fp8": ["--kv-cache-dtype", "fp8"]}
_SGLANG_WEIGHTS = {"bf16": [], "fp16": [], "fp8": ["--quantization", "fp8"], "int8": ["--quantization", "w8a8_int8"]}
_SGLANG_CACHE = {"bf16": ["--kv-cache-dtype", "auto"], "fp8": ["--kv-cache-dtype", "fp8_e4m3"]}
_VLLM_ROLES = {"prefill": "kv_producer", "decode": "kv_consumer"}
_RENDEZVOUS_PORT, BOOTSTRAP_PORT = 29500, 8998


def nodes_of(plan: PoolPlan) -> int:
    """Nodes that one replica spans."""
    return -(-int(plan.row.chips_per_replica[0]) // max(plan.machine.fabric.node_size or 1, 1)) \
        if plan.machine.fabric.node_size else 1


def vllm_words(model: str, role: str, plan: PoolPlan, *, port: int, context_tokens: int) -> list[str]:
    """The words after `vllm serve` for one replica. Raises BadInput for what vLLM has no word for."""
    row, settings = plan.row.row(0), plan.profile.settings
    tp, groups = int(row["tp"]), int(row["attention_dp"])
    if row["ep"] not in (1, tp * groups):
        raise BadInput(field="ep", value=row["ep"], expected=f"1 or tp x attention_dp = {tp * groups}",
                       remedy="vLLM spreads experts over all chips of a stage: search with --emit vllm.")
    words = ["--host", "0.0.0.0", "--port", str(port), "--tensor-parallel-size", str(tp),
             "--pipeline-parallel-size", str(row["pp"])]
    words += ["--data-parallel-size", str(groups)] if groups > 1 else []
    words += ["--enable-expert-parallel"] if int(row["ep"]) > 1 else []
    if nodes_of(plan) > 1:
        words += ["--nnodes", str(nodes_of(plan)), "--node-rank", "$NODE_RANK", "--master-addr", "$LEADER",
                  "--master-port", str(_RENDEZVOUS_PORT)]
    words += ["--max-model-len", str(context_tokens), "--max-num-seqs", str(settings.max_sequences),
              "--max-num-batched-tokens", str(settings.token_budget),
              "--gpu-memory-utilization", f"{plan.profile.memory_fraction:g}", "--block-size",
              str(settings.block_tokens), "--dtype", "float16" if row["weight_format"] == "fp16" else "bfloat16"]
    words += _format("weight_format", str(row["weight_format"]), _VLLM_WEIGHTS, "vLLM")
    words += _format("cache_format", str(row["cache_format"]), _VLLM_CACHE, "vLLM")
    words.append("--enable-prefix-caching" if settings.prefix_caching else "--no-enable-prefix-caching")
    words.append("--enable-chunked-prefill" if settings.chunked_prefill else "--no-enable-chunked-prefill")
    words.append("--async-scheduling" if settings.asynchronous else "--no-async-scheduling")
    words += ["--max-cudagraph-capture-size", str(settings.capture_sizes[-1])] if row["captured"] else \
        ["--enforce-eager"]
    if settings.acceptance:
        words += ["--speculative-config", json.dumps({"method": "mtp",
                                                      "num_speculative_tokens": len(settings.acceptance)})]
    if role in _VLLM_ROLES:
        words += ["--kv-transfer-config", json.dumps({"kv_connector": "NixlConnector", "kv_role": _VLLM_ROLES[role]})]
    check_words(words, "vllm")
    return words


def sglang_words(model: str, role: str, plan: PoolPlan, *, port: int, context_tokens: int) -> list[str]:
    """The words after `python -m sglang.launch_server` for one replica. Raises BadInput as `vllm_words` does."""
    row, settings = plan.row.row(0), plan.profile.settings
    groups = int(row["attention_dp"])
    words = ["--model-path", model, "--host", "0.0.0.0", "--port", str(port), "--tp-size", str(int(row["tp"]) * groups),
             "--pp-size", str(row["pp"]), "--ep-size", str(row["ep"])]
    words += ["--dp-size", str(groups), "--enable-dp-attention"] if groups > 1 else []
    if nodes_of(plan) > 1:
        words += ["--nnodes", str(nodes_of(plan)), "--node-rank", "$NODE_RANK", "--dist-init-addr",
                  f"$LEADER:{_RENDEZVOUS_PORT}"]
    words += ["--context-length", str(context_tokens), "--max-running-requests", str(settings.max_sequences * groups),
              "--chunked-prefill-size", str(settings.token_budget * groups), "--max-prefill-tokens",
              str(settings.token_budget), "--mem-fraction-static", f"{plan.profile.memory_fraction:g}", "--page-size",
              str(settings.block_tokens), "--dtype", "float16" if row["weight_format"] == "fp16" else "bfloat16"]
    words += _format("weight_format", str(row["weight_format"]), _SGLANG_WEIGHTS, "SGLang")
    words += _format("cache_format", str(row["cache_format"]), _SGLANG_CACHE, "SGLang")
    words += [] if settings.prefix_caching else ["--disable-radix-cache"]
    words += ["--enable-mixed-chunk"] if settings.mixed_steps and role == "serve" else []
    words += [] if settings.asynchronous else ["--disable-overlap-schedule"]
    words += ["--cuda-graph-max-bs-decode", str(settings.capture_sizes[-1])] if row["captured"] else \
        ["--disable-decode-cuda-graph"]
    if settings.acceptance:
        drafts = len(settings.acceptance)
        words += ["--speculative-algorithm", "EAGLE", "--speculative-num-steps", str(drafts),
                  "--speculative-eagle-topk", "1", "--speculative-num-draft-tokens", str(drafts + 1)]
    if role != "serve":
        words += ["--disaggregation-mode", role, "--disaggregation-transfer-backend", "nixl"]
        words += ["--disaggregation-bootstrap-port", str(BOOTSTRAP_PORT)] if role == "prefill" else []
    check_words(words, "sglang")
    return words


def _format(field: str, name: str, known: Mapping[str, list[str]], tool: str) -> list[str]:
    if name not in known:
        raise BadInput(field=field, value=name, expected=f"one of {', '.join(known)}",
                       remedy=f"{tool} makes no such format at the start; pin another, or serve a checkpoint in it.")
    return known[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """How an engine is started. command: before its words ("{model}" stands for the model); router: likewise."""

    command: tuple[str, ...]
    words: Callable[..., list[str]]
    router: tuple[str, ...]
    router_tool: str
    disaggregated: str
    image: str


ENGINES: Mapping[str, Engine] = {
    "vllm": Engine(command=("vllm", "serve", "{model}"), words=vllm_words, router=("vllm-router",),
                   router_tool="vllm-router", disaggregated="--vllm-pd-disaggregation", image="vllm/vllm-openai"),
    "sglang": Engine(command=("python", "-m", "sglang.launch_server"), words=sglang_words,
                     router=("python", "-m", "sglang_router.launch_router"), router_tool="sglang-router",
                     disaggregated="--pd-disaggregation", image="lmsysorg/sglang"),
}
#: Policies of the routers by the simulated ones.
_POLICIES = {"round_robin": "round_robin", "least_loaded": "power_of_two", "prefix": "cache_aware"}


def router_words(engine: Engine, urls: Mapping[str, list[str]], *, policy: str, port: int) -> list[str]:
    """The words of the router before the pools. urls: by role."""
    words = ["--host", "0.0.0.0", "--port", str(port), "--policy", _POLICIES[policy]]
    if "serve" in urls:
        words += ["--worker-urls", *urls["serve"]]
    else:
        bootstrap = [str(BOOTSTRAP_PORT)] if engine.router_tool == "sglang-router" else []
        words.append(engine.disaggregated)
        for url in urls["prefill"]:
            words += ["--prefill", url, *bootstrap]
        for url in urls["decode"]:
            words += ["--decode", url]
    check_words(words, engine.router_tool)
    return words
