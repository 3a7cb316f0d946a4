"""Traces: published ones read whole, and bad ones say where."""

import gzip

import pytest

from serried.catalogue.entry import DATA
from serried.errors import BadInput
from serried.fleet.rules import Rules
from serried.fleet.spec import WHOLE_MILLI
from serried.simulation import Checkpoint, Scenario, simulate
from serried.simulation.traces import FORMATS, read_trace
from tests.simulation.examples import gang, scenario

PHILLY = DATA / "measurements" / "fleet" / "philly" / "philly_jobs.csv.gz"
OPENB = DATA / "measurements" / "fleet" / "openb" / "openb_pod_list_default.csv.gz"
FLEET = scenario(nodes=64, service=False).fleet


def read(path, trace_format):
    return read_trace(path, trace_format, fleet=FLEET, checkpoint=Checkpoint(),
                      shape_of=lambda chips, milli: gang(chips, share_milli=milli))


def test_philly_runs():
    trace = read(PHILLY, "philly")
    assert len(trace) == 33_598
    assert max(job.shape.alternatives[0].chip_count for job in trace.jobs_J) == 128
    assert (trace.arrival_ns_J[1:] >= trace.arrival_ns_J[:-1]).all()
    made = Scenario(name="philly", fleet=FLEET, chips_K=(None,), rules=Rules(order="arrival"), trace=trace,
                    decide_every_ns=60 * 10**9)
    outcome = simulate(made, days=2, seed=1)
    assert outcome.classes[0].started > 0
    assert outcome.chip_hours["useful"] > 0


def test_openb_shares_chips():
    trace = read(OPENB, "openb")
    assert any(job.shape.share_milli < WHOLE_MILLI for job in trace.jobs_J)
    assert all(job.shape.alternatives[0].chip_count for job in trace.jobs_J)


def test_pai_asks_for_percent_of_a_gpu(tmp_path):
    path = tmp_path / "tasks.csv"
    path.write_text("job_name,start_time,end_time,plan_gpu,inst_num\na,10,20,50,1\nb,5,9,200,3\nc,1,2,,1\n", "utf-8")
    trace = read(path, "pai")
    assert trace.arrival_ns_J.tolist() == [0, 5 * 10**9]
    assert [(job.shape.alternatives[0].chip_count, job.shape.share_milli) for job in trace.jobs_J] == [
        (8, 1000), (1, 500)]   # six chips are two whole nodes of four


@pytest.mark.parametrize(("trace_format", "text", "words"), [
    ("csv", "arrival_s,duration_s\n0,1\n", "Missing: chips"),
    ("csv", "arrival_s,duration_s,chips\n5,1,1\n4,1,1\n", "line 3, column arrival_s.*Sort the rows"),
    ("csv", "arrival_s,duration_s,chips\n5,-1,1\n", "line 2, column duration_s"),
    ("csv", "arrival_s,duration_s,chips\n5,1,1.5\n", "line 2, column chips.*whole number"),
    ("csv", "arrival_s,duration_s,chips\n5,nan,1\n", "line 2, column duration_s"),
    ("csv", "arrival_s,duration_s,chips,tenant\n5,1,1,nobody\n", "line 2, column tenant"),
    ("philly", "timestamp,duration,num_gpus\nyesterday,1,1\n", "line 2, column timestamp"),
    ("openb", "creation_time,deletion_time,num_gpu,gpu_milli\n9,8,1,1000\n", "line 2, column deletion_time"),
    ("pai", "start_time,end_time,plan_gpu,inst_num\n9,8,100,1\n", "line 2, column end_time"),
    ("slurm", "a\n", "philly, openb"),
])
def test_a_bad_trace_says_where(tmp_path, trace_format, text, words):
    path = tmp_path / "trace.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=words):
        read(path, trace_format)


def test_what_is_no_trace_is_refused(tmp_path):
    for name, content in (("missing.csv", None), ("half.csv.gz", gzip.compress(b"a,b\n1,2\n" * 99)[:20]),
                          ("binary.csv", b"\xff\xfe\x00")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        for trace_format in FORMATS:
            with pytest.raises(BadInput):
                read(tmp_path / name, trace_format)
