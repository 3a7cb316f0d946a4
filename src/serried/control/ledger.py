"""Where records are kept. The ledger is the only memory of a control plane: all else follows from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from serried.control.records import CHARTER, Record
from serried.errors import NoAnswer

__all__ = ["Ledger", "LedgerLost", "LedgerTaken", "MemoryLedger"]


class LedgerLost(NoAnswer):
    """The ledger cannot be read or written now. Whether the last transaction took place is not known; reading tells."""


class LedgerTaken(LedgerLost):
    """Somebody else wrote to this ledger: two control planes, which must never be."""


class Ledger(Protocol):
    """Records in order, on something that survives."""

    def read(self, after: int = -1) -> Iterator[Record]:
        """Records of a number above `after`, in order."""
        ...

    def charters(self) -> list[Record]:
        """The records of that kind, in order."""
        ...

    def append(self, records: Sequence[Record]) -> None:
        """All of these or none, durable when this returns. Raises LedgerLost; LedgerTaken when the numbers are not
        those that come next, or a key is known."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class MemoryLedger:
    """A ledger that lives as long as its object: for tests and for trying things out."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._keys: set[str] = set()

    def read(self, after: int = -1) -> Iterator[Record]:
        """Records of a number above `after`, in order."""
        yield from self.records[after + 1:]

    def charters(self) -> list[Record]:
        """The records of that kind, in order."""
        return [record for record in self.records if record.kind == CHARTER]

    def append(self, records: Sequence[Record]) -> None:
        """All of these or none."""
        keys = [record.key for record in records if record.key]
        if [record.seq for record in records] != list(range(len(self.records), len(self.records) + len(records))) or (
                len(set(keys)) < len(keys) or not self._keys.isdisjoint(keys)):
            raise LedgerTaken("Records do not follow those of the ledger.", remedy="Read it again.")
        self.records += records
        self._keys.update(keys)

    def close(self) -> None:
        """Nothing is held."""
