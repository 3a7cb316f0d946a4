"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
from pathlib import Path

from serried.errors import BadInput

__all__ = ["write_whole"]


def write_whole(path: Path, content: str | bytes, *, field: str = "file to write") -> None:
    """Write beside, then rename: a reader never sees half of it, and a failure leaves what was there.

    field: which word of the command line named the path. BadInput where nothing can be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content if isinstance(content, bytes) else content.encode())
        partial.replace(path)
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):
            partial.unlink(missing_ok=True)
        raise BadInput(field=field, value=str(path), expected="a file that can be written",
                       remedy=f"{getattr(error, 'strerror', None) or error}; nothing was written.") from None
