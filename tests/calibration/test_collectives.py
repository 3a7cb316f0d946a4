"""Fits recover known parameters, and logs of nccl-tests read in all their forms."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from serried.calibration.collective_profiles import calibrate_on_logs, profile_toml
from serried.calibration.collectives import fit_collectives, predicted_s
from serried.calibration.nccl_log import device_in_log, read_nccl_log
from serried.errors import BadInput
from serried.fabric import Fabric, collective_time_s, read_collectives, read_fabric
from serried.fabric.observations import Observations

HEADER = """# nThread 1 nGpus 1 minBytes 1024 maxBytes 4096 step: 2(factor) warmup iters: 5 iters: 20 agg iters: 1
#  Rank  0 Group  0 Pid    313 on node-a device  0 [0x18] Some Chip
#  Rank  1 Group  0 Pid    314 on node-a device  1 [0x2a] Some Chip
#  Rank  2 Group  0 Pid    315 on node-b device  0 [0x18] Some Chip
#  Rank  3 Group  0 Pid    316 on node-b device  1 [0x2a] Some Chip
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
"""
NEW = """   1024           256     float     sum      -1    29.75    0.03    0.06      0    28.10    0.04    0.07      0
  1073741824     268435456     float     sum      -1   4484.9  239.41  359.12      0   4480.1  239.67  359.50      0
# Out of bounds values : 0 OK
# Avg bus bandwidth    : 100.0
"""
OLD = """        1024           256   float     sum    29.75    0.03    0.06  0e+00    28.10    0.04    0.07  0e+00
  1073741824     268435456   float     sum   4484.9  239.41  359.12  0e+00   4480.1  239.67  359.50  0e+00
"""


def _log(folder, text: str):
    path = folder / "nccl.txt"
    path.write_text(text)
    return path


def test_the_header_names_the_device(tmp_path):
    assert device_in_log(_log(tmp_path, HEADER + NEW)) == "Some Chip"
    assert device_in_log(_log(tmp_path, NEW)) == ""


@pytest.mark.parametrize("prefix", ["", "0:", " 0: ", "[1,0]<stdout>:", "[1,0]<stdout>: ", "[0]"])
@pytest.mark.parametrize("table", [NEW, OLD])
def test_logs_of_every_form(tmp_path, prefix, table):
    text = "# Collective test starting: all_reduce_perf\n" + HEADER + table
    log = read_nccl_log(_log(tmp_path, "".join(prefix + line + "\n" for line in text.splitlines())))
    assert list(log.operation) == ["all_reduce"] * 2
    assert log.degree.tolist() == [4, 4]
    assert log.payload_bytes.tolist() == [1024, 2**30]
    assert log.time_s == pytest.approx([29.75e-6, 4484.9e-6])


def test_in_place_columns(tmp_path):
    assert read_nccl_log(_log(tmp_path, HEADER + NEW), in_place=True).time_s == pytest.approx([28.10e-6, 4480.1e-6])


def test_collective_and_ranks_told_from_bandwidths(tmp_path):
    """359.12 / 239.41 = 1.5 = 2 x 3/4: an all-reduce of four ranks."""
    log = read_nccl_log(_log(tmp_path, NEW))
    assert (log.operation[0], log.degree[0]) == ("all_reduce", 4)


def test_gather_and_exchange_logs(tmp_path):
    row = "  1048576   65536   float   none   -1   64.8   16.18   15.17   0   63.0   16.64   15.60   0\n"
    log = read_nccl_log(_log(tmp_path, "# Collective test starting: all_gather_perf\n" + row))
    assert (log.operation[0], log.degree[0]) == ("all_gather", 16)
    log = read_nccl_log(_log(tmp_path, "mpirun ./build/alltoall_perf -b 1M\n" + row.replace("0   63.0", "N/A   63.0")))
    assert log.operation[0] == "all_to_all"


@pytest.mark.parametrize("text", ["", "hello\n", "# only a header\n", HEADER])
def test_a_log_without_a_table_is_refused(tmp_path, text):
    with pytest.raises(BadInput, match="table"):
        read_nccl_log(_log(tmp_path, text))


def test_an_unnamed_collective_is_refused(tmp_path):
    row = "  1048576   65536   float   none   -1   64.8   16.18   15.17   0   63.0   16.64   15.60   0\n"
    with pytest.raises(BadInput, match="operation"):
        read_nccl_log(_log(tmp_path, row))


def _questions() -> Observations:
    payload, degree = (grid.ravel() for grid in np.meshgrid(2.0 ** np.arange(10, 31, 2), [2.0, 4.0, 8.0]))
    both = ["all_reduce"] * len(payload) + ["all_gather"] * len(payload)
    return Observations(operation=both, payload_bytes=np.tile(payload, 2), degree=np.tile(degree, 2),
                        stride=np.ones(2 * len(payload)), switch_adds=np.zeros(2 * len(payload), dtype=bool),
                        time_s=np.ones(2 * len(payload)), ways=[""] * 2 * len(payload))


def _driven(fabric: Fabric, **changed: float) -> Fabric:
    parameters = {**fabric.profile.parameters, **{name.replace("__", "."): value for name, value in changed.items()}}
    return dataclasses.replace(fabric, profile=dataclasses.replace(fabric.profile, parameters=parameters))


def test_a_fit_recovers_what_made_the_times():
    fabric = _driven(read_fabric("hgx-h100", "generic"), choice__ring__simple=1.0)
    true = _driven(fabric, launch=9e-6, step__ll128=1.6e-6, ratio__ring__ll128=0.4)
    questions = _questions()
    noise = np.exp(0.02 * np.random.default_rng(7).standard_normal(len(questions)))
    seen = dataclasses.replace(questions, time_s=predicted_s(questions, true) * noise)
    fit = fit_collectives(seen, fabric, free=["launch", "step.ll128", "ratio.ring.ll128"])
    assert fit.median_abs_error < 0.03
    for name in ("launch", "step.ll128", "ratio.ring.ll128"):
        assert fit.profile.parameters[name] == pytest.approx(true.profile.parameters[name], rel=0.1)


def test_what_rows_cannot_tell_stays_where_it_was():
    fabric = read_fabric("hgx-h100", "generic")
    questions = _questions()
    seen = dataclasses.replace(questions, time_s=predicted_s(questions, fabric))
    fit = fit_collectives(seen, fabric, free=["launch", "hop.ll", "pair.direct.simple"])
    for name in ("hop.ll", "pair.direct.simple"):
        assert fit.profile.parameters[name] == pytest.approx(fabric.profile.parameters[name], rel=1e-6)


def test_a_fit_needs_rows():
    with pytest.raises(BadInput):
        fit_collectives(_questions().take(np.zeros(66, dtype=bool)), read_fabric("hgx-h100"))


def test_a_fitted_profile_reads_back(tmp_path):
    profile = read_collectives("nvlink4")
    path = tmp_path / "mine.toml"
    path.write_text(profile_toml(profile))
    again = read_collectives(str(path))
    assert again.parameters == pytest.approx(dict(profile.parameters), rel=1e-5)
    assert (again.library, again.evidence_class) == (profile.library, profile.evidence_class)


def test_a_users_log_moves_the_profile_towards_it(tmp_path):
    """A cluster 30 % slower than the shipped profile: a profile fitted on its log is nearer to it."""
    shipped = read_fabric("hgx-h100")
    payload = 2.0 ** np.arange(12, 31)
    seen_s = 1.3 * collective_time_s("all_reduce", payload, 4, fabric=shipped)
    table = "".join(f"  {size:.0f}  {size / 4:.0f}  float  sum  -1  {time * 1e6:.3f}  {size / time / 1e9:.2f}  "
                    f"{1.5 * size / time / 1e9:.2f}  0\n" for size, time in zip(payload, seen_s, strict=True))
    fit = calibrate_on_logs([_log(tmp_path, "all_reduce_perf\n" + HEADER + table)], "hgx-h100", name="mine")
    assert fit.profile.name == "mine"
    assert fit.median_abs_error < 0.12
    assert read_collectives("nvlink4").parameters["launch"] != fit.profile.parameters["launch"]
