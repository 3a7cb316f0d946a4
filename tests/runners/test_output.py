"""Output of ranks: bounded, in parts, and no reason to stop when the disk is full."""

import os
import subprocess
from pathlib import Path

import pytest

from serried.runners import Phase
from serried.runners.output import RotatingLog
from tests.runners.contract import Driver, ranks_of, tasks_of
from tests.runners.local_bench import LocalBench


def test_parts_are_bounded_and_in_order(tmp_path):
    log = RotatingLog(tmp_path / "a" / "0.log", limit_bytes=100, kept_parts=2)
    for number in range(100):
        log.write(b"%09d\n" % number)
    log.close()
    parts = [(tmp_path / "a" / name).read_bytes() for name in ("0.log.2", "0.log.1", "0.log")]
    assert [len(part) for part in parts] == [100, 100, 100]
    assert b"".join(parts) == b"".join(b"%09d\n" % number for number in range(70, 100))
    assert len(list((tmp_path / "a").iterdir())) == 3


def test_a_long_write_is_cut_and_an_old_file_goes_on(tmp_path):
    for data in (b"a" * 30, b"b" * 95):
        log = RotatingLog(tmp_path / "0.log", limit_bytes=50, kept_parts=9)
        log.write(data)
        log.close()
    assert (tmp_path / "0.log.2").read_bytes() == b"a" * 30 + b"b" * 20
    assert (tmp_path / "0.log.1").read_bytes() == b"b" * 50
    assert (tmp_path / "0.log").read_bytes() == b"b" * 25


def test_nothing_is_kept_where_nothing_is_to_be_kept(tmp_path):
    log = RotatingLog(tmp_path / "0.log", limit_bytes=10, kept_parts=0)
    log.write(b"0123456789abc")
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["0.log"]
    assert (tmp_path / "0.log").read_bytes() == b"abc"


def test_a_full_disk_loses_output_and_says_so_once(tmp_path, monkeypatch):
    log, write, full = RotatingLog(tmp_path / "0.log", limit_bytes=1000, kept_parts=1), os.write, [False]

    def write_if_there_is_room(handle, data):
        if full[0]:
            raise OSError(28, "No space left on device")
        return write(handle, data)

    monkeypatch.setattr(os, "write", write_if_there_is_room)
    log.write(b"before\n")
    full[0] = True
    log.write(b"lost\n")
    log.write(b"lost too\n")
    full[0] = False
    log.write(b"after\n")
    log.close()
    assert (tmp_path / "0.log").read_text() == (
        f"before\n\n[serried: 14 bytes of output are missing here: {tmp_path}/0.log: No space left on device]\nafter\n")


def test_a_log_that_cannot_be_opened_stops_nobody(tmp_path):
    (tmp_path / "0.log").symlink_to("/dev/full")   # a link is not followed
    log = RotatingLog(tmp_path / "0.log", limit_bytes=1000, kept_parts=1)
    log.write(b"into nothing")
    log.close()
    assert log.lost_bytes == 12


@pytest.mark.parametrize("obstacle", ["file", "directory"])
def test_a_gang_runs_where_its_output_cannot_be_kept(local, obstacle):
    driver = Driver(local)
    launch = driver.launch("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; exit 4")
    if obstacle == "file":
        (local.state / "logs" / str(launch.attempt)).write_text("in the way")
    else:
        (local.state / "logs" / str(launch.attempt) / "0.log").mkdir(parents=True)
    seen = driver.run(launch, Phase.EXITED)
    assert [rank.exit_code for task in seen.tasks if task.attempt == launch.attempt for rank in task.ranks] == [4]


def test_a_gang_ends_well_on_a_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(disk)], check=False,
                             capture_output=True)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        local = LocalBench(tmp_path)
        local.engine.shutdown(0)
        local.state = disk / "state"
        local.engine = local.open()
        try:
            driver = Driver(local)
            launch = driver.launch("i=0; while [ $i -lt 100000 ]; do echo line $i; i=$((i+1)); done; exit 6",
                                   ranks=(1, 1))
            seen = driver.run(launch, Phase.EXITED)
            assert ranks_of(seen, launch) == {0: 6, 1: 6}
            (Path(local.engine.log_path(launch.attempt, 0))).unlink()
            driver.until(lambda seen: not tasks_of(seen, launch),
                         order=lambda: local.engine.forget(launch.attempt))
            driver.barrier()
        finally:
            local.engine.shutdown(0)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_output_of_a_rank_is_rotated_and_complete_when_it_has_ended(tmp_path):
    local = LocalBench(tmp_path, log_limit_bytes=100_000, log_kept_parts=2)
    try:
        driver = Driver(local)
        launch = driver.launch("i=0; while [ $i -lt 40000 ]; do echo line $i; i=$((i+1)); done")
        driver.run(launch, Phase.EXITED)
        path = local.engine.log_path(launch.attempt, 0)
        text = "".join(Path(name).read_text() for name in (f"{path}.2", f"{path}.1", path))
        assert text.endswith("line 39998\nline 39999\n")
        assert 200_000 < len(text) <= 300_000
        assert not os.path.exists(f"{path}.3")
    finally:
        local.engine.shutdown(0)
