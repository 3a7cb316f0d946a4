"""A log is read whole while it is written and rotated."""

from __future__ import annotations

import itertools
import os
import random
import threading

import pytest

from serried.api.log_reader import LogReader
from serried.runners.output import RotatingLog


def everything(reader: LogReader) -> bytes:
    found = b""
    while piece := reader.read():
        found += piece
    return found


def test_parts_from_the_oldest_on(tmp_path):
    for age, text in ((2, "a"), (1, "b"), (0, "c")):
        (tmp_path / (f"log.{age}" if age else "log")).write_text(text)
    reader = LogReader(str(tmp_path / "log"))
    assert everything(reader) == b"abc"
    (tmp_path / "log").open("a").write("d")
    assert everything(reader) == b"d"
    reader.close()


@pytest.mark.parametrize("seed", range(5))
def test_no_byte_is_missed_while_it_is_rotated(tmp_path, seed):
    chance = random.Random(seed)
    log = RotatingLog(tmp_path / "log", limit_bytes=20_000, kept_parts=60)
    said = [f"line {number} {'x' * chance.randrange(300)}\n".encode() for number in range(3000)]

    def write() -> None:
        for line in said:
            log.write(line)

    reader, found = LogReader(str(tmp_path / "log")), b""
    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        found += reader.read()
    found += everything(reader)
    assert found == b"".join(said)
    reader.close()


def test_parts_that_are_gone_are_passed_over(tmp_path):
    log = RotatingLog(tmp_path / "log", limit_bytes=10, kept_parts=1)
    log.write(b"0123456789")
    reader = LogReader(str(tmp_path / "log"))
    assert everything(reader) == b"0123456789"
    for _ in range(5):
        log.write(b"abcdefghij")
    assert everything(reader) == b"abcdefghij" * 2
    log.write(b"k")
    assert everything(reader) == b"k"
    reader.close()


@pytest.mark.parametrize("tail", [0, 1, 2, 7, 500, 1999, 2000, 5000])
@pytest.mark.parametrize("ends", [b"\n", b""])
def test_a_tail_across_parts(tmp_path, tail, ends):
    text = b"\n".join(b"line %d %s" % (number, b"y" * (number % 90)) for number in range(2000)) + ends
    cut = [0, 10_000, 70_000, len(text)]
    for age, (begin, end) in enumerate(itertools.pairwise(cut)):
        name = f"log.{2 - age}" if age < 2 else "log"
        (tmp_path / name).write_bytes(text[begin:end])
    reader = LogReader(str(tmp_path / "log"), tail=tail)
    assert everything(reader) == b"".join(text.splitlines(keepends=True)[-tail:] if tail else [])
    with (tmp_path / "log").open("ab") as file:
        file.write(b"more")
    assert everything(reader) == b"more"
    reader.close()


def test_a_log_that_is_not_there_yet(tmp_path):
    for tail in (-1, 5):
        reader = LogReader(str(tmp_path / "log"), tail=tail)
        assert reader.read() == b""
        (tmp_path / "log").write_text("now")
        assert everything(reader) == b"now"
        os.unlink(tmp_path / "log")
        assert reader.read() == b""
        reader.close()
