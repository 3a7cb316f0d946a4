"""Traces of every schema are read as they are; what is wrong with one is told by file, line and column."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serried.errors import BadInput
from serried.traffic import read_trace, trace_names

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
PLAIN = "arrival_s,input_tokens,output_tokens\n"
MOON = '{"timestamp": 0, "input_length": 1024, "output_length": 5, "hash_ids": [1, 2]}\n'


@pytest.fixture
def write(tmp_path):
    """A trace file of the given text or bytes."""
    def written(content, name="trace.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return written


def test_shipped_traces_are_what_their_publishers_say():
    assert trace_names() == ["azure-2023-code", "mooncake-synthetic"]
    azure, moon = read_trace("azure-2023-code"), read_trace("mooncake-synthetic")
    assert len(azure) == 8819
    assert azure.arrival_ns_R[:2].tolist() == [0, 52_000_000]
    assert (azure.input_tokens_R[0], azure.output_tokens_R[0]) == (4808, 10)
    assert azure.input_tokens_R.mean() == pytest.approx(2048, rel=0.01)
    assert len(moon) == 3993
    assert moon.hash_block_tokens == 512
    assert (np.diff(moon.block_start_R) == -(-moon.input_tokens_R // 512)).all()
    assert len(np.unique(moon.block_hash_H)) < 0.6 * len(moon.block_hash_H)   # prompts share blocks


def test_azure_dates_are_exact_with_and_without_zone(write):
    found = read_trace(write(AZURE + "2024-05-10 00:00:00.009930+00:00,5,1\n2024-05-10 00:00:01+00:00,5,1\n"
                             "2024-05-10 02:00:01.0099301+02:00,5,1\n"))
    assert found.arrival_ns_R.tolist() == [0, 990_070_000, 1_000_000_100]


def test_burstgpt(write):
    found = read_trace(write(
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n"
        "45.5,GPT-4,1087,0,1087,API log\n"))
    assert found.arrival_ns_R.tolist() == [0, 40_500_000_000]
    assert found.output_tokens_R.tolist() == [18, 1]   # an answer that failed still had to be begun
    assert found.class_names == ("Conversation log", "API log")


def test_bailian_turns_follow_their_parents(write):
    lines = [{"chat_id": 159, "parent_chat_id": -1, "timestamp": 0.5, "input_length": 33, "output_length": 9,
              "type": "text", "turn": 1, "hash_ids": [1, 2, 3]},
             {"chat_id": 160, "parent_chat_id": 159, "timestamp": 61.114, "input_length": 60, "output_length": 2,
              "type": "search", "turn": 2, "hash_ids": [1, 2, 3, 4]}]
    found = read_trace(write("\n".join(map(json.dumps, lines)), "trace.jsonl"))
    assert found.previous_R.tolist() == [-1, 0]
    assert found.arrival_ns_R.tolist() == [0, 60_614_000_000]
    assert found.hash_block_tokens == 16
    assert found.class_names == ("text", "search")


def test_plain_with_classes_and_sessions_and_gzip(write):
    text = ("class,session,arrival_s,input_tokens,output_tokens,think_s\nchat,a,0,10,1,0\nbatch,,0.5,20,2,0\n"
            "chat,a,0.5,30,3,1.5\n")
    for path in (write(text), write(gzip.compress(text.encode()), "trace.csv.gz"), write("\ufeff" + text, "bom.txt")):
        found = read_trace(path)
        assert found.previous_R.tolist() == [-1, -1, 0]
        assert found.think_ns_R.tolist() == [0, 0, 1_500_000_000]
        assert found.class_names == ("chat", "batch")


BAD = {
    "empty": ("", "file", ""), "blank": ("\n \n", "file", ""), "header alone": (PLAIN, "file", ""),
    "a column is missing": ("arrival_s,input_tokens\n0,1\n", "columns", "line 1"),
    "negative time": (PLAIN + "-1,5,5\n", "arrival_s", "line 2"),
    "unsorted": (PLAIN + "0,5,5\n2,5,5\n1,5,5\n", "arrival_s", "line 4"),
    "no number": (PLAIN + "0,5,5\n1,five,5\n", "input_tokens", "line 3"),
    "zero length": (PLAIN + "0,0,5\n", "input_tokens", "line 2"),
    "negative length": (PLAIN + "0,5,-5\n", "output_tokens", "line 2"),
    "half a token": (PLAIN + "0,5,1.5\n", "output_tokens", "line 2"),
    "not finite": (PLAIN + "nan,5,5\n", "arrival_s", "line 2"),
    "endless": (PLAIN + "0,inf,5\n", "input_tokens", "line 2"),
    "huge": (PLAIN + "0,1e30,5\n", "input_tokens", "line 2"),
    "short line": (PLAIN + "0,5,5\n1,5\n", "line", "line 3"),
    "long line": (PLAIN + "0,5,5,9\n", "line", "line 2"),
    "no date": (AZURE + "yesterday,5,5\n", "TIMESTAMP", "line 2"),
    "no day": (AZURE + "2023-02-30 00:00:00,5,5\n", "TIMESTAMP", "line 2"),
    "unsorted dates": (AZURE + "2023-11-16 18:17:03.97,5,5\n2023-11-16 18:17:03.96,5,5\n", "TIMESTAMP", "line 3"),
    "bad json": (MOON + "{nonsense\n", "line", "line 2"), "a list": (MOON + "[1]\n", "line", "line 2"),
    "deep": (MOON + "[" * 100_000 + "\n", "line", "line 2"),
    "no length": (MOON + '{"timestamp": 1, "output_length": 2}\n', "input_length", "line 2"),
    "null": (MOON + '{"timestamp": null, "input_length": 1, "output_length": 2}\n', "timestamp", "line 2"),
    "list as time": ('{"timestamp": [1], "input_length": 1, "output_length": 2}\n', "timestamp", "line 1"),
    "text as hash": (MOON.replace("[1, 2]", '[1, "x"]'), "hash_ids", "line 1"),
    "text as hashes": (MOON.replace("[1, 2]", '"xy"'), "hash_ids", "line 1"),
    "negative hash": (MOON + MOON.replace("[1, 2]", "[-4]"), "hash_ids", "line 2"),
    "vast hash": (MOON.replace("[1, 2]", "[36893488147419103232]"), "hash_ids", "line 1"),
    "list as chat": ('{"chat_id": [1], "timestamp": 0, "input_length": 1, "output_length": 2}\n', "chat_id", "line 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_told_by_line_and_column(write, case):
    text, column, line = BAD[case]
    path = write(text)
    with pytest.raises(BadInput) as error:
        read_trace(path)
    assert error.value.field == column
    assert error.value.file.startswith(path)
    assert line in error.value.file
    assert error.value.remedy


@pytest.mark.parametrize("content", [b"\x00\xff\xfe\x80", b"\x1f\x8bnot gzip at all", gzip.compress(b"x" * 99, mtime=0)[:20],
                                     bytes(range(256)) * 9, b"PAR1\x00\x01"], ids=range(5))
def test_what_is_no_text_is_refused(write, content):
    with pytest.raises(BadInput):
        read_trace(write(content))


@pytest.mark.parametrize("name", ["azure", "no/such/file.csv", "x" * 5000, "a\0b", "", "."], ids=range(6))
def test_a_name_of_nothing_is_told_what_there_is(name):
    with pytest.raises(BadInput, match="azure-2023-code"):
        read_trace(name)


def test_beyond_the_context_the_line_is_told(write):
    path = write(PLAIN + "0,10,5\n1,90,20\n2,99,99\n")
    assert len(read_trace(path)) == 3
    with pytest.raises(BadInput, match=r"line 3.*100 tokens.*2 of the 3"):
        read_trace(path, context_tokens=100)


CELLS = st.sampled_from(["0", "1", "-1", "1e400", "nan", "", '"', "2023-11-16 18:17:03", "x", "3.5", "\x00", "é"])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.one_of(
    st.binary(max_size=200), st.lists(st.lists(CELLS, max_size=4), max_size=5).map(
        lambda rows: (PLAIN + "\n".join(map(",".join, rows))).encode()),
    st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=3).map(
        lambda rows: (AZURE + "\n".join(map(",".join, rows))).encode()),
    st.lists(st.dictionaries(
        st.sampled_from(["timestamp", "input_length", "output_length", "hash_ids", "chat_id", "parent_chat_id"]),
        st.recursive(st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats() | st.text(max_size=3),
                     lambda inner: st.lists(inner, max_size=3), max_leaves=4)), min_size=1, max_size=3).map(
        lambda rows: "\n".join(map(json.dumps, rows)).encode())))
def test_nothing_that_is_read_breaks_the_reader(write, content):
    """Either requests that hold together, or BadInput."""
    try:
        found = read_trace(write(content))
    except BadInput:
        return
    assert len(found) > 0
    assert (np.diff(found.arrival_ns_R) >= 0).all()
    assert min(found.input_tokens_R.min(), found.output_tokens_R.min()) >= 1
    if found.hash_block_tokens:
        assert found.block_start_R[-1] == len(found.block_hash_H)
