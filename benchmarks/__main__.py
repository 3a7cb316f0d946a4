"""Print every benchmark: `python -m benchmarks [NAME ...]`; exit code 1 when one misses its bar."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import benchmarks


def main(names: list[str]) -> int:
    modules = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name != "__main__")
    unknown = set(names) - set(modules)
    if unknown:
        print(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(modules)}", file=sys.stderr)
        return 2
    print(f"{'machine: numpy float64 elements':<58} {benchmarks.reference_rate_per_s():>14,.0f} 1/s")
    missed = 0
    for name in names or modules:
        for row in importlib.import_module(f"benchmarks.{name}").run():
            verdict = "" if not row.bar else f"  bar {row.bar}: {'met' if row.met else 'MISSED'}"
            print(f"{row.name:<58} {row.value:>14,.6g} {row.unit}{verdict}")
            missed += not row.met
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
