"""Caches on their way from prefill to decode engines: fluid flows over shared wires, max-min fair."""

from __future__ import annotations

from math import inf

from serried.engine.spec import KvTransfer

__all__ = ["Transfers"]


class Transfers:
    """Transfers under way, without their latency. next_ns: when the first of them ends at the present rates; -1 =
    there is none."""

    def __init__(self, wires: KvTransfer) -> None:
        self.wires = wires
        self.next_ns = -1
        self._left: dict[int, float] = {}                 # transfer -> bytes
        self._ends: dict[int, tuple[int, int]] = {}       # transfer -> (sender, receiver)
        self._rate: dict[int, float] = {}
        self._now_ns = 0

    def begin(self, transfer: int, sender: int, receiver: int, context_tokens: int, now_ns: int) -> None:
        """A cache of so many tokens sets out."""
        self._pass(now_ns)
        wires = self.wires
        self._left[transfer] = wires.bytes_per_request + wires.bytes_per_token * context_tokens
        self._ends[transfer] = sender, receiver
        self._share()

    def finish(self, now_ns: int) -> list[int]:
        """The transfers that have ended by `now_ns`, in the order in which they began."""
        self._pass(now_ns)
        done = [transfer for transfer, left in self._left.items()
                if left <= self._rate[transfer] * 1e-9]   # within the nanosecond of the clock
        for transfer in done:
            del self._left[transfer], self._ends[transfer], self._rate[transfer]
        self._share()
        return done

    def _pass(self, now_ns: int) -> None:
        elapsed_s = (now_ns - self._now_ns) * 1e-9
        if elapsed_s > 0:
            for transfer, rate in self._rate.items():
                self._left[transfer] -= rate * elapsed_s
        self._now_ns = now_ns

    def _share(self) -> None:
        """Fill all flows alike until a wire is full; its flows stay there; go on with the others."""
        wires = self.wires
        room: dict[tuple[str, int], float] = {("all", 0): wires.total_bytes_per_s}
        flows: dict[tuple[str, int], set[int]] = {("all", 0): set(self._left)}
        for transfer, (sender, receiver) in self._ends.items():
            for wire, most in ((("send", sender), wires.send_bytes_per_s),
                               (("receive", receiver), wires.receive_bytes_per_s)):
                room.setdefault(wire, most)
                flows.setdefault(wire, set()).add(transfer)
        open_flows = set(self._left)
        while open_flows:
            wire = min((wire for wire in flows if flows[wire]), key=lambda one: (room[one] / len(flows[one]), one))
            rate = room[wire] / len(flows[wire])
            for transfer in list(flows[wire]):
                self._rate[transfer] = rate
                open_flows.discard(transfer)
                sender, receiver = self._ends[transfer]
                for other in (("all", 0), ("send", sender), ("receive", receiver)):
                    flows[other].discard(transfer)
                    room[other] = max(room[other] - rate, 0.0)
        first_s = min((left / self._rate[transfer] for transfer, left in self._left.items()), default=inf)
        self.next_ns = -1 if first_s == inf else self._now_ns + max(1, -int(-first_s * 1e9 // 1))
