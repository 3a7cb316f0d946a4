"""A chip as data: figures in base units, what is missing, what is not a chip."""

import math

import pytest

from serried.errors import BadInput, MissingFigure
from serried.silicon import read_chip
from serried.silicon.spec import CHIP_FIGURES, KERNEL_FIGURES

HEAD = 'schema = "serried/chip/1"\nname = "my-chip"\n'


def chip_of_text(tmp_path, text):
    path = tmp_path / "chip.toml"
    path.write_text(text, encoding="utf-8")
    return read_chip(str(path))


def figure(name, value, status="assumed", spread=None):
    return f'"{name}" = {{ value = "{value}", status = "{status}", source = "us"' + \
        (f", spread = {spread}" if spread else "") + " }\n"


def test_figures_come_in_base_units():
    chip = read_chip("h100")
    assert chip.need("hbm_bandwidth") == 3.35e12
    assert chip.need("nic_bandwidth") == 50e9            # 400 Gb/s
    assert chip.need("rent") == pytest.approx(2.95 / 3600)
    assert chip.matrix_peak_flop_per_s("bf16") == 989.4e12
    assert chip.number_formats == ("tf32", "bf16", "fp16", "fp8", "int8")


def test_a_missing_figure_is_named_with_the_line_that_gives_it():
    with pytest.raises(MissingFigure, match=r'add "price" = \{ value = "<number> usd"') as caught:
        read_chip("zhenwu-810e").need("price")
    assert caught.value.owner == "zhenwu-810e"
    assert read_chip("zhenwu-810e").get("price") is None


def test_a_format_the_chip_lacks_is_refused_with_those_it_has():
    with pytest.raises(BadInput, match="bf16, fp16, int8"):
        read_chip("zhenwu-810e").matrix_peak_flop_per_s("fp8")
    with pytest.raises(MissingFigure):
        read_chip("mlu690").matrix_peak_flop_per_s("bf16")


def test_spread_counts_what_a_kernel_reads_and_nothing_else(tmp_path):
    figures = figure("price", "9000 usd", spread=0.5) + figure("hbm_bandwidth", "1 TB/s", spread=0.2)
    assert chip_of_text(tmp_path, HEAD + "[figures]\n" + figures).status_spread == 0.2
    assert {name for name in CHIP_FIGURES if name in KERNEL_FIGURES} == KERNEL_FIGURES


@pytest.mark.parametrize(("text", "field"), [
    (HEAD + '[facts]\nvendr = "x"\n', "facts.vendr"),
    (HEAD + "[facts]\nvendor = 3\n", "facts.vendor"),
    (HEAD + "[facts]\nyear = 20.5\n", "facts.year"),
    (HEAD + "[facts]\nyear = true\n", "facts.year"),
    (HEAD + "[facts]\nyear = 1066\n", "facts.year"),
    (HEAD + "[figure]\nx = 1\n", "figure"),
    (HEAD + "[figures]\n" + figure("matrix_peak", "1 TFLOP/s"), "figures.matrix_peak"),
    (HEAD + "[figures]\n" + figure("matrix_peak.fp7", "1 TFLOP/s"), "figures.matrix_peak.fp7"),
    (HEAD + "[figures]\n" + figure("hbm_bandwidth.fp8", "1 TB/s"), "figures.hbm_bandwidth.fp8"),
    (HEAD + "[figures]\n" + figure("hbm_bandwidth", "3350 PB/s"), "figures.hbm_bandwidth.value"),
    (HEAD + "[figures]\n" + figure("hbm_capacity", "80 B"), "figures.hbm_capacity.value"),
    (HEAD + "[figures]\n" + figure("core_count", "1.5"), "figures.core_count.value"),
    (HEAD + "[figures]\n" + figure("board_power", "300 W") + figure("idle_power", "400 W"), "figures.idle_power.value"),
])
def test_what_is_not_a_chip_is_named(tmp_path, text, field):
    with pytest.raises(BadInput) as caught:
        chip_of_text(tmp_path, text)
    assert caught.value.field == field


def test_every_figure_of_a_chip_has_a_range():
    from serried.silicon.legality import FIGURE_RANGES
    assert set(FIGURE_RANGES) == set(CHIP_FIGURES)
    assert all(0 < low < high < math.inf for low, high in FIGURE_RANGES.values())
