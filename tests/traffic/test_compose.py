"""Traces scaled, cut and repeated; sessions; crowds of clients; lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serried.errors import BadInput
from serried.traffic import (
    Client,
    Requests,
    closed_loop,
    cut,
    mix,
    people,
    read_clients,
    read_trace,
    refuse_beyond,
    repeated,
    scaled,
    sessions,
    stream,
    taken,
    within,
)
from serried.traffic.lengths import empirical, lognormal, uniform
from tests.laws.source import ROOT


def hashed():
    """Three requests of blocks of ten tokens; the second shares the first's opening and follows it."""
    return Requests(arrival_ns_R=np.array([0, 10**9, 3 * 10**9]), input_tokens_R=np.array([20, 30, 9]),
                    output_tokens_R=np.array([5, 6, 7]), class_R=np.array([0, 1, 0]), class_names=("chat", "code"),
                    previous_R=np.array([-1, 0, -1]), think_ns_R=np.array([0, 5, 0]), hash_block_tokens=10,
                    block_start_R=np.array([0, 2, 5, 6]), block_hash_H=np.array([7, 8, 7, 8, 9, 4]))


def same(one, other):
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in Requests.__slots__)


@given(rate=st.floats(0.01, 100), length=st.floats(0.05, 20))
def test_scaling_scales_times_and_lengths_alone(rate, length):
    found = scaled(hashed(), rate=rate, length=length)
    assert found.arrival_ns_R == pytest.approx(hashed().arrival_ns_R / rate, abs=1)
    assert found.input_tokens_R == pytest.approx(np.maximum(np.round(hashed().input_tokens_R * length), 1))
    assert (np.diff(found.block_start_R) <= -(-found.input_tokens_R // 10)).all()   # no block beyond the prompt
    assert found.block_start_R[-1] == len(found.block_hash_H)


def test_scaling_by_one_changes_nothing_and_by_nothing_is_refused():
    assert same(scaled(hashed()), hashed())
    for wrong in ({"rate": 0.0}, {"length": -1.0}, {"rate": float("nan")}):
        with pytest.raises(BadInput):
            scaled(hashed(), **wrong)


def test_a_shortened_prompt_keeps_its_first_blocks():
    assert scaled(hashed(), length=0.5).block_hash_H.tolist() == [7, 7, 8, 4]


def test_a_window_begins_at_its_beginning_and_orphans_stand_alone():
    found = cut(hashed(), begin_s=0.5, end_s=3.5)
    assert found.arrival_ns_R.tolist() == [500_000_000, 2_500_000_000]
    assert found.previous_R.tolist() == [-1, -1]
    assert found.block_hash_H.tolist() == [7, 8, 9, 4]
    with pytest.raises(BadInput, match="lasts 3 s"):
        cut(hashed(), begin_s=4.0)


def test_a_cut_keeps_hashes_beside_their_requests():
    load = read_trace("mooncake-synthetic")
    part, first = cut(load, begin_s=100.0, end_s=200.0), int(np.searchsorted(load.arrival_ns_R, 100 * 10**9))
    for row in (0, len(part) - 1):
        ours = part.block_hash_H[part.block_start_R[row]:part.block_start_R[row + 1]]
        theirs = load.block_hash_H[load.block_start_R[first + row]:load.block_start_R[first + row + 1]]
        assert np.array_equal(ours, theirs)


def test_what_is_beyond_a_context_is_counted():
    refuse_beyond(hashed(), 36)
    with pytest.raises(BadInput, match=r"request 2.*1 of 3"):
        refuse_beyond(hashed(), 35)


def test_rows_are_taken_with_their_sessions():
    assert same(taken(hashed(), np.arange(3)), hashed())
    assert taken(hashed(), np.array([0, 1])).previous_R.tolist() == [-1, 0]


def test_a_trace_repeats_end_to_end():
    found = repeated(hashed(), 7)
    assert found.arrival_ns_R.tolist() == [0, 10**9, 3 * 10**9, 4_500_000_000, 5_500_000_000, 7_500_000_000, 9 * 10**9]
    assert found.previous_R.tolist() == [-1, 0, -1, -1, 3, -1, -1]
    blocks = np.split(found.block_hash_H, found.block_start_R[1:-1])
    assert blocks[3][0] == blocks[4][0]                              # shared within a round
    assert not set(blocks[0]) & set(blocks[3])                       # and not between rounds
    assert same(repeated(hashed(), 2), taken(hashed(), np.arange(2)))
    for wrong in (0, 10**9):
        with pytest.raises(BadInput):
            repeated(hashed(), wrong)


def test_only_what_a_context_holds_is_left():
    assert len(within(hashed(), 25)) == 2
    assert len(within(hashed(), 0)) == 3
    with pytest.raises(BadInput):
        within(hashed(), 3)


def test_a_turn_carries_all_that_was_said():
    count = 2000
    own_in, own_out = np.full(count, 10), np.full(count, 3)
    found = sessions(4.0, count, turns=5.0, think_s=2.0, input_tokens_R=own_in, output_tokens_R=own_out, seed=3)
    later = np.flatnonzero(found.previous_R >= 0)
    before = found.previous_R[later]
    assert (found.input_tokens_R[later] == found.input_tokens_R[before] + 13).all()
    assert (found.input_tokens_R[found.previous_R < 0] == 10).all()
    assert (before < later).all()
    assert count / (found.previous_R < 0).sum() == pytest.approx(5.0, rel=0.1)
    assert found.think_ns_R[later].mean() * 1e-9 == pytest.approx(2.0, rel=0.1)
    assert count / (found.arrival_ns_R[-1] * 1e-9) == pytest.approx(4.0, rel=0.15)


def test_a_closed_loop_needs_somebody_in_it():
    assert closed_loop(3, np.array([1, 2]), np.array([1, 1])).in_flight == 3
    with pytest.raises(BadInput):
        closed_loop(0, np.array([1]), np.array([1]))


def test_a_crowd_is_skewed_and_adds_up():
    crowd = people(Client(rate_per_s=10.0, input_median=100, output_median=50, count=100, skew=1.0, between=0.5),
                   stream(0))
    rates = np.array([one.rate_per_s for one in crowd])
    assert rates.sum() == pytest.approx(10.0)
    assert rates[0] / rates[9] == pytest.approx(10.0)
    assert np.log([one.input_median for one in crowd]).std() == pytest.approx(0.5, rel=0.2)


def test_clients_keep_their_rates_classes_and_lengths():
    clients = [Client(rate_per_s=5.0, input_median=1000, input_sigma=0.5, output_median=100, variation=2.0,
                      name="chat", count=20, skew=1.2),
               Client(rate_per_s=1.0, input_median=20, output_median=400, name="batch")]
    found = mix(clients, 2000.0, 11)
    assert (np.diff(found.arrival_ns_R) >= 0).all()
    counts = np.bincount(found.class_R)
    assert counts / 2000.0 == pytest.approx([5.0, 1.0], rel=0.1)
    assert (found.input_tokens_R[found.class_R == 1] == 20).all()
    assert np.median(found.input_tokens_R[found.class_R == 0]) == pytest.approx(1000, rel=0.05)
    assert same(found, mix(clients, 2000.0, 11))
    assert not np.array_equal(found.arrival_ns_R[:99], mix(clients, 2000.0, 12).arrival_ns_R[:99])


def test_one_more_client_leaves_the_others_alone():
    one = Client(rate_per_s=1.0, input_median=50, input_sigma=1.0, output_median=5, name="a")
    alone, both = mix([one], 100.0, 4), mix([one, Client(rate_per_s=1.0, input_median=9, output_median=9, name="b")],
                                           100.0, 4)
    of_first = both.class_R == 0
    assert np.array_equal(both.arrival_ns_R[of_first], alone.arrival_ns_R)
    assert np.array_equal(both.input_tokens_R[of_first], alone.input_tokens_R)


@pytest.mark.parametrize(("text", "told"), [
    ("", "client"), ("client = 3", "client"), ("[[client]]\nrate_per_s = 1.0", "input_median"),
    ("[[client]]\nrate_per_s = -1\ninput_median = 1\noutput_median = 1", "rate_per_s"),
    ("[[client]]\nrate_per_s = nan\ninput_median = 1\noutput_median = 1", "rate_per_s"),
    ("[[client]]\nrate_per_s = 1\ninput_median = 1\noutput_median = 1\ncount = 1.5", "count"),
    ("[[client]]\nrate_per_s = 1\ninput_median = 1\noutput_median = 1\nname = 4", "name"),
    ("[[client]]\nrate_per_s = 1\ninput_median = 1\noutput_median = 1\nburst = 4", "burst"), ("[[client", "file")])
def test_a_bad_file_of_clients_is_told_where(tmp_path, text, told):
    path = tmp_path / "clients.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput) as error:
        read_clients(path)
    assert told in error.value.field
    assert error.value.file == str(path)


def test_the_example_of_clients_is_read():
    clients = read_clients(ROOT / "examples" / "clients.toml")
    assert [one.name for one in clients] == ["chat", "batch"]
    assert len(mix(clients, 600.0, 0)) == pytest.approx(6.5 * 600, rel=0.15)


def test_a_window_nobody_asks_in_is_refused():
    for duration_s in (0.0, 1e-9, 1e15):
        with pytest.raises(BadInput):
            mix([Client(rate_per_s=1.0, input_median=9, output_median=9)], duration_s, 0)


def test_lengths_have_their_distribution():
    drawn = uniform(1000, 20_000, stream(1), shortest_ratio=0.8)
    assert drawn.min() == 800
    assert drawn.max() == 1000
    assert drawn.mean() == pytest.approx(900, rel=0.01)
    tail = lognormal(500, 20_000, stream(1), sigma=0.7, longest=10**6)
    assert np.median(tail) == pytest.approx(500, rel=0.03)
    assert np.log(tail).std() == pytest.approx(0.7, rel=0.03)


def test_lengths_of_a_trace_come_in_its_pairs():
    trace = read_trace("azure-2023-code")
    inputs, outputs = empirical(trace, 5000, stream(2))
    pairs = set(zip(trace.input_tokens_R.tolist(), trace.output_tokens_R.tolist(), strict=True))
    assert set(zip(inputs.tolist(), outputs.tolist(), strict=True)) <= pairs
    assert inputs.mean() == pytest.approx(trace.input_tokens_R.mean(), rel=0.05)
