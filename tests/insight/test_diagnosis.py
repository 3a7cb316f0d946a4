"""Points made by known settings are traced back to them; files of three kinds are read; the impossible is refused."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from serried.errors import BadInput
from serried.insight import MeasuredPoint, diagnose, read_measured, serving_machine, stack_found
from serried.insight.diagnosis import log_likelihood_G
from serried.planner import estimate_training, layouts_of, machine_of
from serried.serving import deployment, estimate_static
from serried.workload import read_model
from serried.workload.spec import Serving

HEADER = ("id,chip,n_chips,model,dtype,engine,setting,input_len,output_len,concurrency,metric,value,unit,source,"
          "confidence\n")


def points_of(job, machine, layout, concurrencies=(1, 4, 16, 64)):
    found = []
    for count in concurrencies:
        own = replace(job, concurrency=count)
        estimate = estimate_static(own, machine, layout)
        found += [MeasuredPoint(label=f"{metric}@{count}", metric=metric, value=value, unit="", job=own, layout=layout,
                                number_format="bf16")
                  for metric, value in (("output_throughput", float(estimate.output_tokens_per_s[0])),
                                        ("tpot", 1e3 * float(estimate.tpot_s[0])))]
    return found


def with_stack(machine, **parameters):
    return replace(machine, stack=replace(machine.stack, parameters={**machine.stack.parameters, **parameters}))


@pytest.mark.parametrize(("captured", "moved", "layer", "word"), [
    (False, {"unfused_fraction": 1.0}, "launches", "eager"),
    (True, {"gemm_rate_ratio": 0.35}, "gemm kernels", "35% of the kernel profile"),
    (True, {"host_s_per_step": 8e-3}, "host between steps", "8 ms"),
])
def test_a_missing_layer_is_found(rival, captured, moved, layer, word):
    job = Serving(model=read_model("qwen3-0.6b"), input_tokens=512, output_tokens=128, concurrency=1)
    machine = serving_machine(replace(rival, chip_count=1))
    base = {"gemm_rate_ratio": 1.0, "attention_rate_ratio": 1.0, "unfused_fraction": 0.0, "host_s_per_step": 0.0,
            "host_s_per_operator": 7.5e-6, "collective_rate_ratio": 1.0}
    truth = with_stack(machine, **(base | moved))
    found = diagnose(points_of(job, truth, deployment(captured=captured)), job, machine)
    assert found.explanations[0].settings[layer] == word
    assert found.marginals[layer][word] == max(found.marginals[layer].values())
    assert found.explanations[0].rms_error_ln < 0.02
    for marginal in found.marginals.values():
        assert math.fsum(marginal.values()) == pytest.approx(1.0)
    recalibrated = stack_found(found, machine.stack)
    for name, value in moved.items():
        assert recalibrated[name] == pytest.approx(value, rel=0.15)
    assert recalibrated.fitted_rows == 8


def test_missing_overlap_of_a_training_job_is_found(training, rival):
    machine = machine_of(rival)
    layout = layouts_of([{"tp": 8, "micro_batch": 1, "sharding": 1, "overlap_data": True, "sequence_parallel": True}])
    base = {"gemm_rate_ratio": 1.0, "attention_rate_ratio": 1.0, "unfused_fraction": 0.0,
            "collective_rate_ratio": 1.0, "data_overlap": 0.0, "tensor_overlap": 0.0}
    truth = with_stack(machine, **base)
    points = []
    for sequences, tokens in ((16, 4096), (64, 4096), (16, 16384)):
        job = replace(training, global_batch_sequences=sequences, sequence_tokens=tokens)
        points.append(MeasuredPoint(label=f"{sequences}x{tokens}", metric="step_time", unit="s", job=job, layout=layout,
                                    value=float(estimate_training(job, truth, layout).time_s[0]), number_format="bf16"))
    found = diagnose(points, training, machine)
    assert found.explanations[0].rms_error_ln < 0.1
    assert found.combinations == len(set(map(tuple, ((tuple(one.settings.items())) for one in found.explanations)))) \
        or found.combinations > 100


def test_likelihood_against_the_written_out_normal():
    rng = np.random.default_rng(2)
    residual = rng.normal(size=(4, 3))
    covariance = 0.05**2 * np.eye(3) + 0.2**2 * np.ones((3, 3))
    expected = [-0.5 * row @ np.linalg.solve(covariance, row) for row in residual]
    assert log_likelihood_G(residual, noise=0.05, common=0.2) == pytest.approx(expected)


def test_vllm_bench_result_is_read(tmp_path, serving, rival):
    file = tmp_path / "bench.json"
    file.write_text(json.dumps({"completed": 100, "total_input_tokens": 51200, "total_output_tokens": 12800,
                                "max_concurrency": 16, "output_throughput": 500.0, "mean_ttft_ms": 90.0,
                                "mean_tpot_ms": 21.0, "request_throughput": 3.9}))
    points, _ = read_measured(file, serving, serving_machine(rival))
    assert [(point.metric, point.value) for point in points] == [
        ("output_throughput", 500.0), ("ttft_mean", 90.0), ("tpot_mean", 21.0)]
    assert (points[0].job.input_tokens, points[0].job.output_tokens, points[0].job.concurrency) == (512, 128, 16)
    found = diagnose(points, serving, serving_machine(rival))
    assert "layout" in found.marginals
    assert found.explanations[0].probability > 0


def test_megatron_log_is_read(tmp_path, training, rival):
    lines = ["  tensor_model_parallel_size ...................... 4",
             "  pipeline_model_parallel_size .................... 2",
             "  micro_batch_size ................................ 1",
             "  seq_length ...................................... 4096",
             "  world_size ...................................... 8",
             "  sequence_parallel ............................... True",
             "  use_distributed_optimizer ....................... True"]
    lines += [f" iteration {step:8d}/ 100 | consumed samples: 1 | elapsed time per iteration (ms): {ms} | "
              "global batch size:    64 | lm loss: 1.0E+01 |"
              for step, ms in enumerate([90000.0, 20100.0, 20000.0, 20050.0, 19950.0, 20000.0])]
    file = tmp_path / "train.log"
    file.write_text("\n".join(lines))
    points, _ = read_measured(file, training, machine_of(rival))
    assert points[0].value == pytest.approx(20.0)
    assert points[0].layout.row(0)["tp"] == 4
    assert points[0].layout.row(0)["pp"] == 2
    assert points[0].job.global_batch_sequences == 64


def test_csv_of_points_is_read_and_others_are_named(tmp_path, fleet):
    file = tmp_path / "points.csv"
    job = Serving(model=read_model("qwen2.5-7b"), input_tokens=512, output_tokens=128, concurrency=1)
    file.write_text(HEADER + "A,zhenwu-810e,1,Qwen2.5-7B,fp16,vLLM,eager,512,128,4,output_throughput,300,tokens/s,x,x\n"
                    "B,h20,1,Qwen2.5-7B,fp16,vLLM,,512,128,4,output_throughput,300,tokens/s,x,x\n")
    points, skipped = read_measured(file, job, serving_machine(replace(fleet, chip_count=1)))
    assert [point.label for point in points] == ["A"]
    assert skipped == ["B: measured on h20"]


def test_throughput_above_the_peak_is_refused_with_the_arithmetic(tmp_path, fleet):
    file = tmp_path / "points.csv"
    job = Serving(model=read_model("qwen2.5-7b"), input_tokens=512, output_tokens=128, concurrency=1)
    file.write_text(HEADER + "A,zhenwu-810e,1,Qwen2.5-7B,fp16,v,,512,128,4,output_throughput,90000,tokens/s,x,x\n")
    with pytest.raises(BadInput, match=r"450,000 tokens/s x 13\.1 GFLOP a token / 1 chips = 5,87\d\.\d TFLOP/s"):
        read_measured(file, job, serving_machine(replace(fleet, chip_count=1)))


@pytest.mark.parametrize(("name", "content"), [
    ("empty.csv", ""), ("other.csv", "a,b\n1,2\n"), ("bad.json", "{"), ("bad2.json", '{"completed": -1}'),
    ("text.log", "no iteration here")])
def test_what_is_no_measurement_is_refused(tmp_path, name, content, serving, rival):
    (tmp_path / name).write_text(content)
    with pytest.raises(BadInput):
        read_measured(tmp_path / name, serving, serving_machine(rival))
    with pytest.raises(BadInput):
        read_measured(tmp_path / "nothing.csv", serving, serving_machine(rival))
