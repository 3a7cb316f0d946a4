import io

from rich.console import Console

from serried.display.spec import Bar, Stack
from serried.display.terminal import stack_table, waterfall_table


def _drawn(renderable):
    out = io.StringIO()
    Console(file=out, width=130, highlight=False).print(renderable)
    return out.getvalue().splitlines()


def test_steps_start_where_the_last_bar_ended():
    bars = [Bar(label="fleet", value=50, kind="level"), Bar(label="kernels", value=30), Bar(label="layout", value=-10),
            Bar(label="rival", value=70, kind="level")]
    lines = _drawn(waterfall_table("t", bars, unit="tokens/s"))
    fleet, kernels, layout, rival = (line for line in lines if "█" in line)
    start = min(line.index("█") for line in (fleet, rival))

    def reach(line):
        return line.rindex("█") - start

    assert kernels.index("█") - start > reach(fleet) - 2
    assert reach(layout) <= reach(kernels)
    assert abs(reach(layout) - reach(kernels)) <= 1
    assert abs(layout.index("█") - start - reach(rival)) <= 1
    assert "−10" in layout
    assert "+30" in kernels


def test_a_bar_too_short_to_draw_is_still_seen():
    bars = [Bar(label="a", value=100, kind="level"), Bar(label="b", value=0.001)]
    lines = _drawn(waterfall_table("t", bars, unit="s"))
    assert any("│" in line for line in lines)


def test_memory_over_its_limit_says_both_figures():
    full = Stack(label="stage 0", parts=[("weights", 90e9)], limit=80e9)
    line = next(line for line in _drawn(stack_table("m", [full])) if "stage 0" in line)
    assert "90.0 GB" in line
    assert "80 GB" in line
