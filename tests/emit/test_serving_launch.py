"""Launch commands and manifests: every word is documented, every number is the plan's."""

import argparse
import json
import re
import shlex
import subprocess

import numpy as np
import pytest

from serried.cli.plan_traffic_files import SERVING_EMITTERS, EmitWords, write_launches
from serried.emit.documented import check_words, documented
from serried.emit.engines import ENGINES, nodes_of, router_words, sglang_words, vllm_words
from serried.emit.kubernetes import kubernetes_manifests
from serried.errors import BadInput
from serried.fabric import read_fleet
from serried.serving import deployment, serving_machine
from serried.serving.cluster import PoolPlan
from serried.serving.profile import read_engine
from serried.serving.traffic_search import Trial
from tests.serving.search_cases import question

WORDS = {"vllm": vllm_words, "sglang": sglang_words}


def _plan(engine="vllm", fleet="h100:16", settings=None, **degrees) -> PoolPlan:
    return PoolPlan(machine=serving_machine(read_fleet(fleet).pools[0]), row=deployment(**degrees),
                    profile=read_engine(engine).with_settings(**(settings or {})))


def _parser(tool):
    """A parser made of the documented list alone, strict about what it does not know."""
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    kinds = {"int": int, "float": float, "text": str, "words": str, "ints": int, "json": json.loads}
    for name, rule in documented(tool).items():
        if rule["type"] == "flag":
            parser.add_argument(name, action="store_true")
        else:
            many = {"nargs": "+"} if rule["type"] in ("words", "ints") else {}
            repeated = {"action": "append"} if name in ("--prefill", "--decode") else {}
            choices = [kinds[rule["type"]](choice) for choice in rule["choices"]] if "choices" in rule else None
            parser.add_argument(name, type=kinds[rule["type"]], choices=choices, **many, **repeated)
    return parser


@pytest.mark.parametrize("role", ["serve", "prefill", "decode"])
@pytest.mark.parametrize("degrees", [{"tp": 8}, {"tp": 2, "pp": 2, "weight_format": "fp8", "cache_format": "fp8"},
                                     {"tp": 2, "attention_dp": 4, "ep": 8}, {"tp": 1, "captured": False}])
def test_vllm_words_say_the_plan(role, degrees):
    plan = _plan(settings={"max_sequences": 77, "token_budget": 3000, "acceptance": (0.8, 0.5)}, **degrees)
    parsed = _parser("vllm").parse_args(vllm_words("a/b", role, plan, port=8001, context_tokens=5000))
    row = plan.row.row(0)
    assert (parsed.tensor_parallel_size, parsed.pipeline_parallel_size) == (row["tp"], row["pp"])
    assert (parsed.data_parallel_size or 1) == row["attention_dp"]
    assert parsed.enable_expert_parallel == (row["ep"] > 1)
    assert (parsed.max_num_seqs, parsed.max_num_batched_tokens, parsed.max_model_len) == (77, 3000, 5000)
    assert parsed.gpu_memory_utilization == plan.profile.memory_fraction
    assert parsed.block_size == plan.profile.settings.block_tokens
    assert parsed.quantization == ("fp8" if row["weight_format"] == "fp8" else None)
    assert parsed.kv_cache_dtype == ("fp8" if row["cache_format"] == "fp8" else "auto")
    assert parsed.speculative_config["num_speculative_tokens"] == 2
    assert parsed.enforce_eager == (not row["captured"])
    roles = {"prefill": "kv_producer", "decode": "kv_consumer"}
    assert (parsed.kv_transfer_config or {}).get("kv_role") == roles.get(role)


@pytest.mark.parametrize("role", ["serve", "prefill", "decode"])
@pytest.mark.parametrize("degrees", [{"tp": 8}, {"tp": 2, "attention_dp": 4, "ep": 4}, {"tp": 1, "captured": False}])
def test_sglang_words_say_the_plan(role, degrees):
    plan = _plan("sglang", settings={"max_sequences": 33, "token_budget": 4096}, **degrees)
    parsed = _parser("sglang").parse_args(sglang_words("a/b", role, plan, port=8001, context_tokens=5000))
    row = plan.row.row(0)
    assert parsed.tp_size == row["tp"] * row["attention_dp"]   # its tensor degree counts the attention groups in
    assert (parsed.ep_size, parsed.pp_size, parsed.model_path) == (row["ep"], row["pp"], "a/b")
    assert parsed.enable_dp_attention == (row["attention_dp"] > 1)
    assert parsed.max_running_requests == 33 * row["attention_dp"]
    assert parsed.max_prefill_tokens == 4096
    assert parsed.context_length == 5000
    assert parsed.disaggregation_mode == (None if role == "serve" else role)
    assert (parsed.disaggregation_bootstrap_port is not None) == (role == "prefill")


@pytest.mark.parametrize("name", ENGINES)
def test_routers_know_every_engine(name):
    parser = _parser(ENGINES[name].router_tool)
    flat = parser.parse_args(router_words(ENGINES[name], {"serve": ["http://a:1", "http://b:2"]}, policy="prefix",
                                          port=9))
    assert (flat.worker_urls, flat.policy, flat.port) == (["http://a:1", "http://b:2"], "cache_aware", 9)
    apart = parser.parse_args(router_words(ENGINES[name], {"prefill": ["http://a:1", "http://b:1"],
                                                           "decode": ["http://c:2"]}, policy="round_robin", port=9))
    assert [words[0] for words in apart.prefill] == ["http://a:1", "http://b:1"]
    assert apart.decode == ["http://c:2"]


@pytest.mark.parametrize("words", [["--no-such"], ["--max-num-seqs", "many"], ["--dtype", "int3"],
                                   ["--kv-transfer-config", "[]"], ["--max-num-seqs"], ["--headless", "yes"]])
def test_the_checker_can_fail(words):
    with pytest.raises((AssertionError, ValueError)):
        check_words(words, "vllm")


def test_what_a_tool_has_no_word_for_is_refused():
    with pytest.raises(BadInput, match="ep"):
        vllm_words("a/b", "serve", _plan(tp=4, attention_dp=2, ep=4), port=1, context_tokens=10)
    with pytest.raises(BadInput, match="weight_format"):
        vllm_words("a/b", "serve", _plan(tp=4, weight_format="int8"), port=1, context_tokens=10)


_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@pytest.mark.parametrize("name", ENGINES)
def test_manifests_are_whole_and_fit_together(name):
    plans = [("prefill", _plan(name, tp=2, replicas=3)), ("decode", _plan(name, tp=8, pp=2, replicas=1))]
    text = kubernetes_manifests("Qwen/Qwen3-8B", plans, name, context_tokens=4096, resources={"h100": "x.org/chip"})
    documents = [json.loads(part) for part in text.split("---\n")[1:]]   # JSON is YAML
    assert all({"apiVersion", "kind", "metadata", "spec"} <= set(document) for document in documents)
    assert all(_LABEL.fullmatch(document["metadata"]["name"]) for document in documents)
    kinds = {document["metadata"]["name"]: document for document in documents if document["kind"] != "Service"}
    services = {document["metadata"]["name"]: document for document in documents if document["kind"] == "Service"}
    assert set(kinds) == set(services)
    few, wide, router = kinds["qwen3-8b-prefill"], kinds["qwen3-8b-decode"], kinds["qwen3-8b-router"]
    assert (few["kind"], wide["kind"], router["kind"]) == ("Deployment", "LeaderWorkerSet", "Deployment")
    assert few["spec"]["replicas"] == 3
    assert wide["spec"]["leaderWorkerTemplate"]["size"] == nodes_of(plans[1][1]) == 2
    pods = [few["spec"]["template"]["spec"], router["spec"]["template"]["spec"],
            *(wide["spec"]["leaderWorkerTemplate"][part]["spec"] for part in ("leaderTemplate", "workerTemplate"))]
    for pod in pods:
        for container in pod["containers"]:
            assert {"name", "image", "command"} <= set(container)
            assert all(isinstance(word, str) for word in container["command"])
            mounts = {mount["name"] for mount in container.get("volumeMounts", ())}
            assert mounts == {volume["name"] for volume in pod.get("volumes", ())}
    chips = [pod["containers"][0]["resources"]["limits"]["x.org/chip"] for pod in (pods[0], pods[2])]
    assert chips == ["2", "8"]
    for label, service in services.items():
        if kinds[label]["kind"] == "Deployment":
            assert service["spec"]["selector"].items() <= kinds[label]["spec"]["template"]["metadata"]["labels"].items()
    told = " ".join(router["spec"]["template"]["spec"]["containers"][0]["command"])
    assert "http://qwen3-8b-prefill:8000" in told
    assert "http://qwen3-8b-decode:8000" in told


def test_scripts_are_shell_and_give_every_chip_once(tmp_path):
    ask = question()
    plans = (_plan(tp=2, replicas=3), _plan(tp=8, replicas=1))
    trial = Trial(plans=plans, chips=14, figures={}, feasible=True, on_front=True)
    written = write_launches(ask, trial, SERVING_EMITTERS, EmitWords(), tmp_path)
    assert [path.name for path in written] == ["vllm.sh", "sglang.sh", "kubernetes.yaml"]
    script = (tmp_path / "vllm.sh").read_text(encoding="utf-8")
    subprocess.run(["bash", "-n", str(tmp_path / "vllm.sh")], check=True)
    subprocess.run(["bash", "-n", str(tmp_path / "sglang.sh")], check=True)
    used = [(node, chip) for node, chips in re.findall(r'"\$NODE" = (\d+) .*?VISIBLE_DEVICES=([\d,]+)', script, re.S)
            for chip in chips.split(",")]
    assert len(used) == len(set(used)) == 14
    commands = script.replace("\\\n", " ")
    assert commands.count("vllm serve") == 4
    for line in (line for line in commands.splitlines() if "vllm serve" in line):
        words = shlex.split(line.rpartition("vllm serve")[2].rstrip("& "))
        check_words(words[1:], "vllm")
    assert str(int(np.max(ask.requests.input_tokens_R + ask.requests.output_tokens_R))) in script


def test_nothing_is_written_when_a_tool_refuses(tmp_path):
    trial = Trial(plans=(_plan(tp=4, attention_dp=2, ep=4),), chips=8, figures={}, feasible=True, on_front=True)
    with pytest.raises(BadInput):
        write_launches(question(), trial, ["sglang", "vllm"], EmitWords(), tmp_path / "new")
    assert not (tmp_path / "new").exists()
