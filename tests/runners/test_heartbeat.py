"""The heartbeat file, and everything in it that is none."""

import os
import re

import pytest

from serried.runners import Beat
from serried.runners.heartbeat import BeatFile


def told(tmp_path, data: bytes) -> Beat | None:
    (tmp_path / "0").write_bytes(data)
    file = BeatFile(tmp_path / "0")
    file.look(7)
    return file.last


def test_the_last_whole_line_counts(tmp_path):
    assert told(tmp_path, b"1 0.5\n2 0.25\n3 0.1") == Beat(step=2, busy_s=0.25, heard_ns=7)
    assert told(tmp_path, b"12\n") == Beat(step=12, heard_ns=7)
    assert told(tmp_path, b"%d 1\n" * 1000 % tuple(range(1000))) == Beat(step=999, busy_s=1.0, heard_ns=7)


@pytest.mark.parametrize("data", [b"", b"\n", b"1 0.5", b"x y\n", b"-1 0\n", b"1 nan\n", b"1 inf\n", b"1 -1\n",
                                  b"9" * 5000 + b" 1\n", b"1e3 1\n", b"\xff\n", b"1" * 30 + b" 1\n"])
def test_garbage_is_no_beat(tmp_path, data):
    assert told(tmp_path, data) is None


def test_only_what_was_written_anew_is_a_beat(tmp_path):
    file = BeatFile(tmp_path / "0")
    assert not file.look(1)
    (tmp_path / "0").write_text("1 0.5\n")
    assert file.look(2)
    assert not file.look(3)
    assert file.last == Beat(step=1, busy_s=0.5, heard_ns=2)
    os.utime(tmp_path / "0", ns=(1, 1))   # the same line again
    assert file.look(4)
    assert file.last == Beat(step=1, busy_s=0.5, heard_ns=4)


def test_what_is_no_plain_file_is_left_alone(tmp_path):
    os.mkfifo(tmp_path / "0")
    (tmp_path / "1").symlink_to("/dev/zero")
    (tmp_path / "2").mkdir()
    assert not any(BeatFile(tmp_path / name).look(1) for name in ("0", "1", "2"))


def test_the_words_of_a_beat_are_documented():
    import serried.runners.heartbeat as room
    assert re.search(r"step busy_s", room.__doc__)
