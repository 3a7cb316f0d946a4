"""Scenario files: what is read, and what is refused with what words."""

import re

import pytest

from serried.clock import DAY_NS, HOUR_NS, SECOND_NS
from serried.errors import BadInput
from serried.simulation import simulate
from serried.simulation.reliability import read_faults
from serried.simulation.scenario_fields import TABLES
from serried.simulation.scenario_file import read_scenario
from tests.laws.source import ROOT

SMALL = (ROOT / "examples" / "fleet-small.toml").read_text(encoding="utf-8")


def written(tmp_path, text):
    path = tmp_path / "scenario.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_small_example_reads_whole(tmp_path):
    made = read_scenario(written(tmp_path, SMALL))
    assert made.fleet.node_count == 256
    assert made.fleet.kinds == ("h20", "h800") or len(made.fleet.kinds) == 2
    assert made.decide_every_ns == 10 * SECOND_NS
    assert [one.name for one in made.classes] == ["notebook", "training"]
    assert made.classes[0].median_ns == HOUR_NS
    assert made.classes[1].tenants == ((0, 3.0), (1, 1.0))
    assert made.faults[0].rate_per_s == pytest.approx(3 * 3.03e-4 / 86400)
    assert made.services[0].peak_load == 16


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
    (("chips = [64, 128, 256]", "chips = [64, 100]"), "whole nodes"),
    (("chips = [64, 128, 256]", "chips = [4096]"), "the largest of its pools"),
    (('level = "leaf"', 'level = "rack"'), "leaf, spine"),
    (('level = "leaf"', 'level = "leaf"\nlevel_required = true\npools = ["h20"]\n', ), "tenants|level|h20|expected"),
    (("tenants = { research", "tenants = { reseach"), "Nearest: research"),
    (('policy = "full"', 'policy = "fulll"'), "full"),
    (('rates = "dense-training-2024"', 'rates = "dense-training-2042"'), "dense-training-2024"),
    (("peak = 16", "peak = 1"), "at least the base"),
    (('name = "products"', 'name = "research"'), "names that differ"),
    (('schema = "serried/fleet-scenario/1"', 'schema = "serried/fleet/1"'), "serried/fleet-scenario/1"),
])
def test_what_makes_no_sense_is_refused_by_name(tmp_path, change, words):
    text = SMALL.replace(change[0], change[1], 1)
    assert text != SMALL
    with pytest.raises(BadInput, match=re.sub(r"([\[\]])", r"\\\1", words)) as caught:
        read_scenario(written(tmp_path, text.replace("chips = [64, 128, 256]", "chips = [512]")
                              if "level_required" in text else text))
    assert "scenario.toml" in str(caught.value) or "policy" in str(caught.value) or "h21x" in str(caught.value) or (
        "dense" in str(caught.value))


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
    text = SMALL[:SMALL.index("[[jobs]]")] + '[trace]\nfile = "jobs.csv"\n'
    outcome = simulate(read_scenario(written(tmp_path, text)), days=1, seed=1)
    assert outcome.classes[0].finished == 2
    assert outcome.chip_hours["useful"] == pytest.approx(8 + 2 * 16)   # twelve chips are two whole nodes
    assert outcome.days * DAY_NS == DAY_NS
