"""How long from a cold start to the answer of `serried gap`: a serving and a training question, each in a process of
its own."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

from benchmarks import Row

__all__ = ["run"]

QUESTIONS = {
    "gap, serving on 8 chips": ["gap", "Qwen/Qwen3-32B", "--fleet", "zhenwu-810e:8", "--rival", "h20:8", "--serve",
                                "512/128@64", "--json"],
    "gap, training on 1,024 chips": ["gap", "meta-llama/Llama-3.1-70B", "--fleet", "ascend-910b3:1024", "--rival",
                                     "h100:512", "--train", "8192x1024", "--json"],
}
BAR_S = 3.0


def run(*, repeats: int = 5) -> list[Row]:
    rows = []
    for name, arguments in QUESTIONS.items():
        walls_s, inside_s = [], []
        for _ in range(repeats):
            began = time.perf_counter()
            answer = subprocess.run([sys.executable, "-c", "from serried.cli import main; main()", *arguments],
                                    check=True, capture_output=True)
            walls_s.append(time.perf_counter() - began)
            inside_s.append(json.loads(answer.stdout)["timing"]["wall_s"])
        cold_s = statistics.median(walls_s)
        rows += [Row(name=f"{name}: cold start to answer", value=cold_s, unit="s", bar=f"<= {BAR_S:g} s",
                     met=cold_s <= BAR_S),
                 Row(name=f"{name}: of which simulation", value=statistics.median(inside_s), unit="s")]
    return rows
