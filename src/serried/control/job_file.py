"""A job as a file, TOML or YAML by its ending, read into a submission."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from serried.catalogue.entry import read_toml
from serried.control.job_form import read_form, spec_of
from serried.control.spec import JobSpec
from serried.errors import BadInput

__all__ = ["read_job"]

_MOST_BYTES = 1_000_000


def read_job(path: Path) -> JobSpec:
    """The submission that a file asks for. Relative directories start at the file's folder.

    Raises BadInput, which names file, field, value, expectation and remedy.
    """
    file = str(path)
    form = read_form(_table(path), file=file)
    if form.name is None:
        form = form.model_copy(update={"name": path.stem})
    if form.workload is not None:   # half the house is loaded for it
        from serried.control.managed import written

        form = written(form, file=file)
    return spec_of(form, file=file, folder=str(path.resolve().parent))


def _table(path: Path) -> dict[str, Any]:
    if path.suffix == ".toml":
        return read_toml(path)
    if path.suffix not in (".yaml", ".yml"):
        raise BadInput(file=str(path), field="file", value=path.name, expected="a file that ends in .toml or .yaml",
                       remedy="Rename it after what it holds.")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BadInput(file=str(path), field="file", value=path.name, expected="a job of at most 1 MB",
                           remedy="Leave data in files of its own.")
        found = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)   # a SafeLoader: makes no objects
    except OSError as error:
        raise BadInput(file=str(path), field="file", value=path.name, expected="a readable file",
                       remedy=str(error)) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise BadInput(file=str(path), field="file", value=path.name, expected="valid YAML in UTF-8",
                       remedy=" ".join(str(error).split())) from None
    if not isinstance(found, dict):
        raise BadInput(file=str(path), field="file", value=path.name, expected="a table of fields",
                       remedy="Write `name: value` lines.")
    return found


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML ships no types
    """The safe loader, which also refuses a field given twice, and references by which a small file becomes huge."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not followed: write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Refuse doubles."""
        names = [key.value for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.YAMLError(f"{name!r} is given twice (line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)
