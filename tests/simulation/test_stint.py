"""Where the time of one stint goes: by hand, and always all of it."""

from hypothesis import given
from hypothesis import strategies as st

from serried.simulation.stint import Phases, Stint


def stint(**given):
    return Stint(**{"milli": 1000, "began_ns": 100, "restart_ns": 10, "work_ns": 95, "interval_ns": 20, "write_ns": 5,
                    **given})


def total(phases: Phases) -> int:
    return sum(getattr(phases, name) for name in Phases.__slots__)


def test_undisturbed_by_hand():
    one = stint()
    assert one.needed_ns == 95 + 4 * 5          # saves after 20, 40, 60, 80; none at the end
    assert one.end_ns() == 110 + 115
    assert one.close(one.end_ns(), intact=True) == Phases(restart_ns=10, saved_ns=95, write_ns=20, lost_ns=0, slow_ns=0,
                                                          hung_ns=0, broken_ns=0)


def test_a_fault_costs_what_was_not_saved():
    one = stint()
    one.hang(110 + 25 + 7)                      # one save, then seven
    one.broken_since_ns = 110 + 25 + 7 + 30
    assert one.close(110 + 25 + 7 + 30 + 3) == Phases(restart_ns=10, saved_ns=20, write_ns=5, lost_ns=7, slow_ns=0,
                                                      hung_ns=30, broken_ns=3)


def test_half_a_save_saves_nothing():
    one = stint()
    one.hang(110 + 22)
    assert one.close(110 + 22) == Phases(restart_ns=10, saved_ns=0, write_ns=2, lost_ns=20, slow_ns=0, hung_ns=0,
                                         broken_ns=0)


def test_beside_a_slow_node_half_the_time_is_lost():
    one = stint(pace=0.5)
    assert one.end_ns() == 110 + 230
    assert one.close(110 + 40, intact=True).slow_ns == 20


@given(st.integers(0, 50), st.integers(1, 500), st.integers(1, 60), st.integers(0, 20), st.floats(0.1, 1.0),
       st.integers(0, 700), st.integers(0, 90), st.integers(0, 90), st.booleans())
def test_every_nanosecond_is_in_one_phase(restart, work, interval, write, pace, until, unknown, known, intact):
    one = Stint(milli=1, began_ns=0, restart_ns=restart, work_ns=work, interval_ns=interval, write_ns=write, pace=pace)
    until = min(until, one.end_ns())
    if unknown:
        one.hang(until)
        one.broken_since_ns = until + unknown
        until += unknown + known
    phases = one.close(until, intact=intact)
    assert total(phases) == until
    assert min(getattr(phases, name) for name in Phases.__slots__) >= 0
