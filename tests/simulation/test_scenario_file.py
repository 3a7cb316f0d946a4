"""Scenario files: what is read, and what is refused with what words."""

import re

import pytest

from serried.clock import DAY_NS, HOUR_NS, SECOND_NS
from serried.economics import chip_usd_per_s
from serried.errors import BadInput
from serried.fabric import read_fleet
from serried.fleet.weighing import Weigher
from serried.planner import machine_of, search_training
from serried.silicon import read_chip
from serried.simulation import simulate
from serried.simulation.reliability import read_faults
from serried.simulation.scenario_fields import TABLES
from serried.simulation.scenario_file import read_scenario
from serried.workload import Training, read_model
from tests.laws.source import ROOT

SMALL = (ROOT / "examples" / "fleet-small.toml").read_text(encoding="utf-8")


WEIGHER = Weigher()   # what one test planned need not be planned by the next


def written(tmp_path, text):
    path = tmp_path / "scenario.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_small_example_reads_whole(tmp_path):
    made = read_scenario(written(tmp_path, SMALL), weigher=WEIGHER)
    assert made.fleet.node_count == 256
    assert made.fleet.kinds == ("h20", "h800") or len(made.fleet.kinds) == 2
    assert made.decide_every_ns == 10 * SECOND_NS
    assert [one.name for one in made.classes] == ["notebook", "training"]
    assert made.classes[0].median_ns == HOUR_NS
    assert made.classes[1].tenants == ((0, 3.0), (1, 1.0))
    assert made.faults[0].rate_per_s == pytest.approx(3 * 3.03e-4 / 86400)
    assert made.services[0].peak_load == 16


def test_a_model_is_weighed_by_the_planner_on_every_pool(tmp_path):
    made = read_scenario(written(tmp_path, SMALL), weigher=WEIGHER)
    weighed = WEIGHER.planned
    large = made.classes[1].shapes_Z[2]
    assert [(way.kinds, way.chip_count, way.chips_per_worker) for way in large.alternatives] == [
        ((0,), 256, 8), ((1,), 128, 8)]
    best = search_training(Training(model=read_model("Qwen/Qwen3-8B"), sequence_tokens=8192,
                                    global_batch_sequences=256), machine_of(read_fleet("h800:128").pools[0]), top=1,
                           bounded=True, number_format=["bf16"], overlap_data=[True], overlap_tensor=[False])
    assert large.alternatives[1].throughput_per_s == pytest.approx(256 * 8192 / float(best.estimate.time_s[0]))
    usd_per_s = chip_usd_per_s(1.0, chip=read_chip("h800"), price_usd=30000.0)
    assert large.alternatives[1].price_usd_per_s == pytest.approx(128 * float(usd_per_s))
    assert [way.chip_count for way in made.services[0].shape.alternatives] == [8, 4]
    assert [way.throughput_per_s for way in made.classes[0].shapes_Z[0].alternatives] != [1.0, 1.0]
    read_scenario(written(tmp_path, SMALL), weigher=WEIGHER)
    assert WEIGHER.planned == weighed == 8   # three gangs on two pools, one replica on each


def test_jobs_go_where_a_dollar_does_most_and_take_as_long_as_they_take_there(tmp_path):
    text = SMALL[:SMALL.index("[[jobs]]")] + """
[[jobs]]
name = "training"
per_day = 0
backlog = 1
chips = [64]
median = "10 h"
model = "Qwen/Qwen3-8B"
train = "8192x256"
chips_on = { h800 = [32] }
"""
    made = read_scenario(written(tmp_path, text.replace("scale = 3.0", "scale = 0.0")), weigher=WEIGHER)
    (shape,) = made.classes[0].shapes_Z
    first, second = shape.alternatives
    assert second.worth > first.worth
    outcome = simulate(made, days=1, seed=1)
    assert outcome.kinds[0].held_ratio == 0
    took_h = outcome.chip_hours["useful"] / 32
    assert took_h == pytest.approx(10 * first.throughput_per_s / second.throughput_per_s, rel=1e-3)


def test_the_large_example_is_a_fleet_of_470_000_chips():
    made = read_scenario(ROOT / "examples" / "fleet-470k.toml")
    assert int(made.fleet.chip_count_N.sum()) == 470_000
    assert sum(one.arrivals_per_s for one in made.classes) * 86400 * 30 > 200_000
    assert len(made.fleet.kinds) == 3


@pytest.mark.parametrize(("change", "words"), [
    (("per_day = 200", "per_daz = 200"), "jobs[0].per_daz.*Nearest: per_day"),
    (("per_day = 200", 'per_day = "many"'), "jobs[0].per_day.*a number"),
    (('median = "1 h"', 'median = "1 parsec"'), "jobs[0].median"),
    (('median = "1 h"', ""), "jobs[0].median.*median duration"),
    (("count = 1536", "count = 1537"), "whole nodes of 8 chips.*1536 or 1544"),
    (('chip = "h20"', 'chip = "h21x"'), "chip"),
    (("chips = [64, 128, 256]", "chips = [64, 100, 256]"), "whole nodes"),
    (("chips = [1, 2, 4, 8]", "chips = [4096]"), "the largest of its pools"),
    (('level = "leaf"', 'level = "rack"'), "leaf, spine"),
    (('chips = [64, 128, 256]\n', 'chips = [512, 512, 512]\nlevel_required = true\n'), "256 chips under one leaf"),
    (("tenants = { research", "tenants = { reseach"), "Nearest: research"),
    (('policy = "full"', 'policy = "fulll"'), "full"),
    (('rates = "dense-training-2024"', 'rates = "dense-training-2042"'), "dense-training-2024"),
    (("peak = 16", "peak = 1"), "at least the base"),
    (('name = "products"', 'name = "research"'), "names that differ"),
    (('model = "Qwen/Qwen3-8B"', 'model = "Qwen/Qwen3-8Z"'), "jobs[1].model = 'Qwen/Qwen3-8Z'.*qwen3-8b"),
    (('model = "Qwen/Qwen3-8B"', ""), "jobs[1].model.*the model that is meant"),
    (('train = "8192x256"', ""), "jobs[1].train / serve.*8192x1024"),
    (('train = "8192x256"', 'train = "8192x256"\nserve = "512/128@64"'), "jobs[1].train / serve.*not both"),
    (('train = "8192x256"', 'train = "8192 by 256"'), "jobs[1].train = '8192 by 256'.*SEQxGLOBAL_BATCH.*8192x1024"),
    (('serve = "512/128@64"', 'serve = "512/128@0"'), "service[0].serve = '512/128@0'.*above 0"),
    (('serve = "512/128@64"', 'train = "8192x256"'), "service[0].train.*known here"),
    (('model = "Qwen/Qwen3-32B"', 'model = "moonshotai/Kimi-K2"'), "service[0].model.*runs on one of its pools.*8 x"),
    (("chips_on = { h800 = [32, 64, 128] }", "chips_on = { h800 = [32, 64] }"), "jobs[1].chips_on.h800.*each of the 3"),
    (("chips_on = { h800 = [32, 64, 128] }", "chips_on = { h900 = [32, 64, 128] }"), "chips_on.*Nearest: h800"),
    (("chips_on = { h800 = 4 }", "chips_on = { h800 = 4.5 }"), "service[0].chips_on.h800.*a whole number"),
    (("chips_on = { h800 = 4 }", "chips_on = 4"), "service[0].chips_on = 4.*names with whole numbers"),
    (('chip = "h20"', 'chip = "h20"\nfabric = "hgx-h21"'), "hgx-h2"),
    (('schema = "serried/fleet-scenario/1"', 'schema = "serried/fleet/1"'), "serried/fleet-scenario/1"),
])
def test_what_makes_no_sense_is_refused_by_name(tmp_path, change, words):
    text = SMALL.replace(change[0], change[1], 1)
    assert text != SMALL
    with pytest.raises(BadInput, match=re.sub(r"([\[\]])", r"\\\1", words)) as caught:
        read_scenario(written(tmp_path, text.replace("[32, 64, 128]", "[512, 512, 512]") if "level_required" in text
                              else text), weigher=WEIGHER)
    assert any(word in str(caught.value) for word in ("scenario.toml", "policy", "h21", "dense"))


def test_every_field_is_documented():
    text = (ROOT / "docs" / "fleet-scenario.md").read_text(encoding="utf-8")
    for fields in TABLES.values():
        for name, field in fields.items():
            assert f"| `{name}` | {field.holds} |" in text
            assert field.about in text


def test_rates_of_the_catalogue_have_a_source():
    faults = read_faults("dense-training-2024")
    assert {fault.component for fault in faults} == {"chip", "link", "node", "leaf"}
    assert all(fault.source and fault.rate_per_s > 0 for fault in faults)


def test_a_trace_replaces_a_mix(tmp_path):
    (tmp_path / "jobs.csv").write_text("arrival_s,duration_s,chips,tenant\n0,3600,8,research\n60,7200,12,products\n",
                                       encoding="utf-8")
    text = SMALL[:SMALL.index("[[jobs]]")] + '[trace]\nfile = "jobs.csv"\npools = ["h20"]\n'
    outcome = simulate(read_scenario(written(tmp_path, text)), days=1, seed=1)
    assert outcome.classes[0].finished == 2
    assert outcome.chip_hours["useful"] == pytest.approx(8 + 2 * 16)   # twelve chips are two whole nodes
    assert outcome.days * DAY_NS == DAY_NS
