"""Chakra traces: read back in full, read by protobuf's own parser where it is installed, refused with their place."""

import os
import subprocess
from pathlib import Path

import pytest

from serried.emit import protobuf_wire
from serried.emit.chakra import read_chakra, write_chakra
from serried.errors import BadInput
from serried.weave import ALGORITHMS, Schedule, faults, stock_schedule
from tests.laws.source import ROOT

TOOL = Path(os.environ.get("SERRIED_TORCH_PYTHON", ROOT / ".venv-tools" / "bin" / "python"))


def written(folder, schedule, payload_bytes=1e6):
    for ending, content in write_chakra(schedule, payload_bytes).items():
        (folder / f"plan{ending}").write_bytes(content)
    return folder / "plan.0.et"


@pytest.mark.parametrize("operation", list(ALGORITHMS))
def test_a_trace_comes_back_as_the_schedule_it_was(operation, tmp_path):
    algorithm = next(iter(ALGORITHMS[operation]))
    schedule = stock_schedule(operation, algorithm, 8, chunks=2)
    found = read_chakra(written(tmp_path, schedule))
    assert isinstance(found, Schedule)
    assert faults(found) == []
    for column in ("rank_K", "lane_K", "kind_K", "peer_K", "channel_K", "source_chunk_K", "target_chunk_K", "count_K"):
        assert (getattr(found.steps, column) == getattr(schedule.steps, column)).all(), column


def _bare(content):
    """The trace without what only we read."""
    messages = []
    for _, message in protobuf_wire.split(content):
        kept = [(number, value) for number, value in protobuf_wire.fields(message)
                if not (isinstance(value, bytes) and b"serried" in value)]
        messages.append(protobuf_wire.encoded(kept))
    return protobuf_wire.delimited(messages)


def test_a_bare_trace_is_traffic(tmp_path):
    schedule = stock_schedule("all_reduce", "ring", 4)
    path = written(tmp_path, schedule, 4000.0)
    for each in tmp_path.glob("*.et"):
        each.write_bytes(_bare(each.read_bytes()))
    tasks = read_chakra(path)
    assert len(tasks) == len(schedule.steps)
    assert {task.payload_bytes for task in tasks} == {1000}


def test_a_message_that_nobody_takes_is_refused(tmp_path):
    path = written(tmp_path, stock_schedule("all_reduce", "ring", 4))
    for each in tmp_path.glob("*.et"):
        each.write_bytes(_bare(each.read_bytes()))
    last = tmp_path / "plan.3.et"
    messages = [message for _, message in protobuf_wire.split(last.read_bytes())]
    last.write_bytes(protobuf_wire.delimited(messages[:-1]))
    with pytest.raises(BadInput, match="rank"):
        read_chakra(path)


def test_bad_traces_are_refused_with_their_place(tmp_path):
    path = written(tmp_path, stock_schedule("all_reduce", "ring", 4))
    content = path.read_bytes()
    path.write_bytes(content[:-3])
    with pytest.raises(BadInput, match="byte"):
        read_chakra(path)
    path.write_bytes(content)
    (tmp_path / "plan.2.et").unlink()
    with pytest.raises(BadInput, match="from 0 on"):
        read_chakra(path)
    (tmp_path / "plan.3.et").unlink()
    with pytest.raises(BadInput, match="rank_count"):
        read_chakra(path)
    with pytest.raises(BadInput, match=r"NAME\.RANK\.et"):
        read_chakra(tmp_path / "plan.et")


_READ = """
import sys
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal.decoder import _DecodeVarint32
f = descriptor_pb2.FileDescriptorProto(name="et.proto", package="t", syntax="proto3")
def message(name, fields):
    m = f.message_type.add(name=name)
    for number, field, kind, label, of in fields:
        m.field.add(name=field, number=number, type=kind, label=label, **({"type_name": of} if of else {}))
message("Int64List", [(1, "values", 3, 3, "")])
message("AttributeProto", [(1, "name", 9, 1, ""), (7, "int32_val", 5, 1, ""), (9, "int64_val", 3, 1, ""),
                           (10, "int64_list", 11, 1, ".t.Int64List"), (27, "bool_val", 8, 1, ""),
                           (29, "string_val", 9, 1, "")])
message("GlobalMetadata", [(1, "version", 9, 1, ""), (2, "attr", 11, 3, ".t.AttributeProto")])
message("Node", [(1, "id", 4, 1, ""), (2, "name", 9, 1, ""), (3, "type", 13, 1, ""), (5, "data_deps", 4, 3, ""),
                 (10, "attr", 11, 3, ".t.AttributeProto")])
pool = descriptor_pool.DescriptorPool()
pool.Add(f)
make = lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName("t." + name))()
told, at = open(sys.argv[1], "rb").read(), 0
for order in range(1 << 20):
    if at >= len(told):
        break
    length, at = _DecodeVarint32(told, at)
    read = make("Node" if order else "GlobalMetadata")
    read.ParseFromString(told[at:at + length])
    at += length
    values = {a.name: a.int64_val or a.int32_val for a in read.attr}
    print(read.version if not order else (read.id, read.type, list(read.data_deps), values.get("comm_size"),
                                          values.get("comm_dst")))
"""


def test_the_library_s_own_parser_reads_a_trace(tmp_path):
    if not TOOL.exists() or subprocess.run([TOOL, "-c", "import google.protobuf"], check=False,
                                           capture_output=True).returncode:
        pytest.skip("protobuf is not installed here; `make tools` installs it")
    path = written(tmp_path, stock_schedule("all_reduce", "ring", 4), 4000.0)
    lines = subprocess.run([TOOL, "-c", _READ, path], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    assert lines[0] == "0.0.4"
    assert len(lines) == 1 + 12
    assert lines[1].startswith("(0, 5, [")
    assert all(", 1000, " in line for line in lines[1:])
