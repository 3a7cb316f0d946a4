"""Public schemas are recognised and read; whatever is wrong is refused with its line and column."""

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.errors import BadInput
from serried.traffic import read_trace, trace_names

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" \
        "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n"
BURST = ("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n"
         "45,GPT-4,1087,230,1317,API log\n")
MOONCAKE = '{"timestamp": 0, "input_length": 900, "output_length": 6, "hash_ids": [0, 1]}\n' \
           '{"timestamp": 1500, "input_length": 1000, "output_length": 4, "hash_ids": [0, 2]}\n'
BAILIAN = '{"chat_id": 1, "parent_chat_id": -1, "timestamp": 0.5, "input_length": 40, "output_length": 6, ' \
          '"type": "text", "turn": 1, "hash_ids": [1, 2]}\n' \
          '{"chat_id": 2, "parent_chat_id": 1, "timestamp": 9.0, "input_length": 80, "output_length": 9, ' \
          '"type": "file", "turn": 2, "hash_ids": [1, 2, 3]}\n'
PLAIN = "arrival_s,input_tokens,output_tokens,class,session,think_s\n" \
        "0,10,5,chat,a,0\n2.5,20,6,batch,,0\n3,40,7,chat,a,1.5\n"


def written(tmp_path, text, name="trace"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_shipped_traces_are_whole():
    assert trace_names() == ["azure-2023-code", "mooncake-synthetic"]
    azure, mooncake = read_trace("azure-2023-code"), read_trace("mooncake-synthetic")
    assert (len(azure), int(azure.input_tokens_R[0]), int(azure.output_tokens_R[0])) == (8819, 4808, 10)
    assert azure.arrival_ns_R[1] == pytest.approx(52_000_000, abs=1000)
    assert (len(mooncake), mooncake.hash_block_tokens) == (3993, 512)
    assert (np.diff(mooncake.arrival_ns_R) >= 0).all()


@pytest.mark.parametrize(("text", "seconds", "inputs", "outputs"), [
    (AZURE, [0, 0.052], [4808, 3180], [10, 8]), (BURST, [0, 40], [472, 1087], [18, 230]),
    (MOONCAKE, [0, 1.5], [900, 1000], [6, 4]), (BAILIAN, [0, 8.5], [40, 80], [6, 9]),
    (PLAIN, [0, 2.5, 3], [10, 20, 40], [5, 6, 7])])
def test_schemas(tmp_path, text, seconds, inputs, outputs):
    load = read_trace(written(tmp_path, text))
    assert np.allclose(load.arrival_ns_R * 1e-9, seconds, atol=1e-6)
    assert load.input_tokens_R.tolist() == inputs
    assert load.output_tokens_R.tolist() == outputs


def test_what_a_schema_knows_beside(tmp_path):
    bailian = read_trace(written(tmp_path, BAILIAN))
    assert (bailian.hash_block_tokens, bailian.previous_R.tolist()) == (16, [-1, 0])
    assert bailian.class_names == ("text", "file")
    plain = read_trace(written(tmp_path, PLAIN))
    assert plain.previous_R.tolist() == [-1, -1, 0]
    assert plain.think_ns_R[2] == 1_500_000_000
    assert plain.class_names == ("chat", "batch")


def test_gzip_is_read(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(PLAIN.encode()))
    assert len(read_trace(str(path))) == 3


HEAD = "arrival_s,input_tokens,output_tokens\n"


@pytest.mark.parametrize(("text", "where"), [
    ("arrival_s,output_tokens\n0,3\n", "input_tokens"), (HEAD + "0,10,5\n-1,10,5\n", "line 3"),
    (HEAD + "5,10,5\n4,10,5\n", "line 3: arrival_s"), (HEAD + "0,0,5\n", "line 2: input_tokens"),
    (HEAD + "0,10,5\n1,10,x\n", "line 3: output_tokens"), (HEAD + "0,10,2.5\n", "line 2: output_tokens"),
    (HEAD + "0,10\n", "line 2"), (HEAD, "header alone"), ("", "at least one request"), (HEAD + "nan,10,5\n", "line 2"),
    ('{"timestamp": 0, "input_length": 5}\n', "output_length"), ('{"timestamp": 0, \n', "line 1"),
    ('{"timestamp": 0, "input_length": 5, "output_length": 1, "hash_ids": ["a"]}\n', "hash_ids"),
    ("[1]\n", "columns"), ("\x00\x01\x02", "columns"),
    ("TIMESTAMP,ContextTokens,GeneratedTokens\nnoon,1,1\n", "line 2")])
def test_bad_traces_name_the_place(tmp_path, text, where):
    with pytest.raises(BadInput, match=where):
        read_trace(written(tmp_path, text))


def test_a_request_beyond_the_context_names_line_and_column(tmp_path):
    with pytest.raises(BadInput, match="line 4: input_tokens"):
        read_trace(written(tmp_path, PLAIN), context_tokens=30)


def test_an_unknown_trace_names_the_nearest():
    with pytest.raises(BadInput, match="mooncake-synthetic"):
        read_trace("mooncake")


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_junk_is_refused_and_nothing_else(tmp_path_factory, junk):
    path = tmp_path_factory.mktemp("junk") / "t"
    path.write_bytes(junk)
    with pytest.raises(BadInput):
        read_trace(str(path))
