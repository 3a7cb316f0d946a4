"""Which figures are known, from whom, and how surely?

In: TOML tables and measurement files, shipped under `serried/data` or given by the user. Out: named entries of
`Figure`s, each with value, unit, status and source, and the measurements as typed columns. A blank stays unknown.
"""

from serried.catalogue.entry import Entry, meant_by, names_of, read_entry
from serried.catalogue.spec import STATUSES, Figure, Status

__all__ = ["STATUSES", "Entry", "Figure", "Status", "meant_by", "names_of", "read_entry"]
