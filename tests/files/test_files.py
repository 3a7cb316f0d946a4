"""Files are there whole or not at all."""

import pytest

from serried.errors import BadInput
from serried.files import write_whole


@pytest.mark.parametrize("content", ["all of it", b"\xff\x00all of it"])
def test_nothing_stays_beside_a_file(tmp_path, content):
    write_whole(tmp_path / "a", "before")
    write_whole(tmp_path / "a", content)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == (content.encode() if isinstance(content, str) else content)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(BadInput, match=r"--html.*nothing was written"):
        write_whole(tmp_path / "a", "text", field="--html")
    with pytest.raises(BadInput, match=r"nothing was written"):
        write_whole(tmp_path / "no" / "b", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
