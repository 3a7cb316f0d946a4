"""Run one schedule again and print its ledger: `python -m tests.control.run_seed SEED [TROUBLE]`."""

from __future__ import annotations

import sys

from tests.control.schedule import BEGAN_NS, Schedule
from tests.control.world import SECOND_NS


def main() -> None:
    seed = int(sys.argv[1])
    schedule = Schedule(seed, trouble=float(sys.argv[2]) if len(sys.argv) > 2 else 0.3 if seed % 4 == 3 else 0.1)
    try:
        schedule.run()
    finally:
        for record in schedule.ledger.records:
            after_s = (record.time_ns - BEGAN_NS) / SECOND_NS
            print(f"{record.seq:4d} {after_s:9.3f} {record.kind:8s} {record.body[:160]}")
        print(f"lives {schedule.lives}, crashes {schedule.world.crashes}")


if __name__ == "__main__":
    main()
