from __future__ import annotations

import pytest

from serried.errors import BadInput
from serried.software import (
    STACK_PARAMETERS,
    find_stack_name,
    perfect_stack,
    population_stack,
    read_stack,
    stack_for,
    stack_names,
)

HEAD = 'schema = "serried/stack/1"\nname = "mine"\n'
GOOD = 'gemm_rate_ratio = { value = 0.9, spread = 0.1, status = "measured", source = "mine" }\n'


@pytest.mark.parametrize("name", stack_names())
def test_every_shipped_stack_reads_within_its_ranges(name):
    stack = read_stack(name, "*")
    assert set(stack.parameters) == set(STACK_PARAMETERS)
    for parameter, value in stack.parameters.items():
        spec = STACK_PARAMETERS[parameter]
        assert spec.low <= value <= spec.high
        assert stack.spreads[parameter] >= 0
    assert stack.facts["kind"] in ("training", "serving")


def test_names_as_people_print_them_find_their_stack():
    assert find_stack_name("NeMo 24.07") == "megatron-2024"
    assert find_stack_name("Megatron-LM") == "megatron-lm-2022"
    assert find_stack_name("Megatron-LM 0.14") == "megatron-core-2025"
    assert find_stack_name("Primus/Megatron-LM") == "primus"
    assert find_stack_name("NeMo AutoModel (PyTorch FSDP2)") == "automodel"
    assert find_stack_name("something nobody wrote") is None


def test_an_unknown_framework_is_the_population_with_its_spread():
    stack = stack_for("hopper", "training", "something nobody wrote")
    assert stack.name == "population"
    assert stack.spreads["gemm_rate_ratio"] > 0
    rates = [read_stack(name, "hopper")["gemm_rate_ratio"] for name in stack_names("training")]
    assert min(rates) <= stack["gemm_rate_ratio"] <= max(rates)


def test_population_of_serving_is_not_that_of_training():
    assert population_stack("no-such-family", "serving").facts["kind"] == "serving"


def test_a_family_of_its_own_comes_before_any_and_the_mean_speaks_for_strangers(tmp_path):
    file = tmp_path / "mine.toml"
    fits = "".join(f'[[fit]]\nchip_family = "{family}"\nrows = 3\ngemm_rate_ratio = {{ value = {value}, spread = 0.02, '
                   f'status = "measured", source = "mine" }}\n' for family, value in (("one", 0.8), ("two", 1.0)))
    file.write_text(HEAD + fits, encoding="utf-8")
    assert read_stack(str(file), "one")["gemm_rate_ratio"] == 0.8
    assert read_stack(str(file), "one").fitted_rows == 3
    stranger = read_stack(str(file), "three")
    assert stranger["gemm_rate_ratio"] == pytest.approx(0.9)
    # deviation 0.1414 x 1.2816 = 0.1812, own 0.02
    assert stranger.spreads["gemm_rate_ratio"] == pytest.approx((0.18124**2 + 0.02**2) ** 0.5, rel=1e-3)
    assert stranger.fitted_rows == 0


def test_the_perfect_stack_is_the_ceiling():
    perfect = perfect_stack()
    assert perfect["gemm_rate_ratio"] == 1
    assert perfect["host_s_per_operator"] == 0
    assert perfect["data_overlap"] == 1


@pytest.mark.parametrize(("text", "field"), [
    (HEAD, "fit"),
    (HEAD + "[[fit]]\nrows = -1\n" + GOOD, "rows"),
    (HEAD + "[[fit]]\nspeed = 1\n", "speed"),
    (HEAD + "[[fit]]\n" + GOOD.replace("0.9", "7"), "gemm_rate_ratio"),
    (HEAD + "[[fit]]\n" + GOOD.replace("measured", "sworn"), "status"),
    (HEAD + "[facts]\nsharding = \"much\"\n[[fit]]\n" + GOOD, "facts.sharding"),
    (HEAD + "[facts]\nkind = \"both\"\n[[fit]]\n" + GOOD, "facts.kind"),
])
def test_what_is_not_a_stack_is_refused_by_field(tmp_path, text, field):
    file = tmp_path / "mine.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput) as refused:
        read_stack(str(file), "hopper")
    assert field in refused.value.field
    assert refused.value.file == str(file)
