"""Put a predicted step beside a measured one: `serried plan ... --json` beside the curve that train.py wrote.

    python compare.py plan.json checkpoints/curve.jsonl
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

#: Steps at the start of each attempt that also pay for first touches of memory.
WARM_UP_STEPS = 3


def main() -> None:
    """Print the table; nothing is fitted."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("curve", type=Path)
    words = parser.parse_args()
    best = json.loads(words.plan.read_text(encoding="utf-8"))["layouts"][0]
    steps = warm_steps(words.curve)
    print(f"predicted   {best['step_time_s']:.4f} s   (80 %: {best['low_s']:.4f} to {best['high_s']:.4f})")
    print("            " + ", ".join(f"{cause.replace('_', ' ')} {time_s:.4f}"
                                     for cause, time_s in best["time_by_cause_s"].items() if time_s > 1e-6))
    for column, about in (("cpu_s", "processor time of rank 0"), ("step_time_s", "clock on the wall")):
        times_s = [step[column] for step in steps]
        median_s = statistics.median(times_s)
        print(f"measured    {median_s:.4f} s median, {min(times_s):.4f} least of {len(times_s)}; {about}; "
              f"predicted / median {best['step_time_s'] / median_s:.3f}")


def warm_steps(path: Path) -> list[dict]:
    """Steps of a curve without the first few of each attempt."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    kept, attempt, place = [], None, 0
    for line in lines:
        place = place + 1 if line["restarts"] == attempt else 0
        attempt = line["restarts"]
        if place >= WARM_UP_STEPS:
            kept.append(line)
    if not kept:
        raise SystemExit(f"{path}: fewer than {WARM_UP_STEPS + 1} steps")
    return kept


if __name__ == "__main__":
    main()
