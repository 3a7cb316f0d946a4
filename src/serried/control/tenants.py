"""Who pays, from a file.

    [[tenant]]
    name = "research"
    weight = 2.0                # of fair share, among those of one parent
    parent = "company"          # a tenant above, named before
    quota = { cpu = 8 }         # chips of a kind that are its own by right
    borrows = true              # whether it may hold more while others leave theirs idle
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from serried.catalogue.entry import read_toml
from serried.errors import BadInput, nearest
from serried.fleet import Tenant

__all__ = ["read_tenants"]

Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class _TenantForm(BaseModel):
    """One [[tenant]]."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    name: Name
    weight: float = Field(default=1.0, gt=0, le=1e6)
    parent: Name | None = None
    quota: dict[str, Annotated[int, Field(ge=0, le=10**7)]] = Field(default={})
    borrows: bool = True


_FORMS = TypeAdapter(list[_TenantForm])


def read_tenants(path: Path, kinds: Sequence[str]) -> tuple[Tenant, ...]:
    """The tenants of a file; kinds: of the fleet's chips, in its order. Raises BadInput."""
    file, said = str(path), read_toml(path)
    forms = _checked(said, file)
    names = [form.name for form in forms]
    found = []
    for place, form in enumerate(forms):
        if form.name in names[:place]:
            raise BadInput(file=file, field=f"tenant[{place}].name", value=form.name, expected="a name of its own",
                           remedy="Give every tenant another name.")
        if form.parent is not None and form.parent not in names[:place]:
            raise BadInput(file=file, field=f"tenant[{place}].parent", value=form.parent, expected="a tenant named "
                           "before this one", remedy=_nearest(form.parent, names[:place]))
        for kind in form.quota:
            if kind not in kinds:
                raise BadInput(file=file, field=f"tenant[{place}].quota", value=kind, expected=f"a kind of chip of "
                               f"this fleet: {', '.join(kinds)}", remedy=_nearest(kind, kinds))
        found.append(Tenant(
            name=form.name, weight=form.weight, parent=-1 if form.parent is None else names.index(form.parent),
            quota_chips_K=tuple(form.quota.get(kind, 0) for kind in kinds) if form.quota else (),
            borrows=form.borrows))
    return tuple(found)


def _checked(said: dict[str, Any], file: str) -> list[_TenantForm]:
    unknown = next((name for name in said if name != "tenant"), None)
    if unknown is not None or not isinstance(said.get("tenant"), list) or not said["tenant"]:
        raise BadInput(file=file, field=unknown or "tenant", value=said.get(unknown or "tenant"),
                       expected="[[tenant]] tables", remedy='Write [[tenant]] with name = "...".')
    try:
        return _FORMS.validate_python(said["tenant"])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place, *rest = first["loc"]
        field = ".".join(str(part) for part in rest)
        remedy = _nearest(field, _TenantForm.model_fields) if first["type"] == "extra_forbidden" else \
            "Correct the value."
        raise BadInput(file=file, field=f"tenant[{place}].{field}", value=first["input"],
                       expected=first["msg"].removeprefix("Input should be "), remedy=remedy) from None


def _nearest(name: str, known: Sequence[str] | Any) -> str:
    near = nearest(name, known, count=1)
    return f"Perhaps {near[0]!r} is meant." if near else f"Known: {', '.join(known) or 'none'}."
