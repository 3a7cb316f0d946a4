"""Measure this machine's CPU, one core a chip, into files that `serried calibrate` and `serried plan` take.

    python measure_cpu.py --out mine          # a few minutes; no rank of a training runs here

writes a chip (`this-cpu.toml`), what its cores talk over (`loopback.toml`), and measurements: `gemm.csv`,
`attention.csv`, `memory.csv`, and `all_reduce-N.log` in the form of nccl-tests.

A kernel is timed by the processor time that is spent on it, the median of many tries: on a machine that others use as
well the clock on the wall measures the others. What processes do together has only that clock: the least of many tries.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import platform
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from torch import Tensor
from torch.nn import functional

FLOAT_BYTES = 4
#: A sample lasts at least so long, so that reading the clock does not count.
SAMPLE_S = 2e-3
MOST_COPIES = 128   # of a small operand that comes cold
#: Sides of the products: hidden and feed-forward widths and vocabularies of small decoders.
WIDTHS = ((256, 256), (512, 256), (256, 512), (1536, 256), (256, 768), (768, 768), (1024, 256), (256, 1024),
          (1024, 1024), (384, 1536))
SEQUENCES = ((1, 128), (4, 128), (8, 128), (16, 128), (2, 256), (8, 256), (1, 512), (4, 512))
WEIGHT_GRADIENTS = ((512, 256), (256, 256), (1536, 256), (256, 768), (1024, 256))

#: What was measured to seconds: of every round, and in the end their median.
Rounds = dict[tuple, list[float]]
Samples = dict[tuple, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is measured. cold_bytes: more than a last cache holds, for operands that come cold."""

    tokens: tuple[int, ...]
    sequences: tuple[tuple[int, int], ...]
    cold_bytes: int
    most_payload_bytes: int


WHOLE = Scale(tokens=(128, 512, 1024, 2048), sequences=SEQUENCES, cold_bytes=2**26, most_payload_bytes=2**25)
QUICK = Scale(tokens=(32,), sequences=tuple((1, tokens) for tokens in range(8, 72, 8)), cold_bytes=2**20,
              most_payload_bytes=2**17)


def main() -> None:
    """Measure round after round, so that a neighbour's burst spoils one round alone, and write the median of each."""
    words = arguments()
    scale = QUICK if words.quick else WHOLE
    torch.set_num_threads(1)
    words.out.mkdir(parents=True, exist_ok=True)
    rounds: dict[str, Rounds] = {}
    measures = {"gemm": gemms, "attention": attentions, "memory": memories, "stream": streams}
    for turn in range(words.rounds):
        for name, measure in measures.items():
            for key, time_s in measure(scale):
                rounds.setdefault(name, {}).setdefault(key, []).append(time_s)
        print(f"round {turn + 1} of {words.rounds}", file=sys.stderr, flush=True)
    typical = {name: {key: statistics.median(times_s) for key, times_s in kept.items()}
               for name, kept in rounds.items()}
    source = f"measure_cpu.py on this machine, {datetime.now(UTC):%Y-%m-%d}"
    write_gemms(words.out / "gemm.csv", typical["gemm"])
    write_attentions(words.out / "attention.csv", typical["attention"])
    write_memories(words.out / "memory.csv", typical["memory"])
    (words.out / "this-cpu.toml").write_text(chip_text(typical, source), encoding="utf-8")
    logs = {ranks: all_reduces(ranks, words.rounds, scale.most_payload_bytes) for ranks in words.ranks}
    for ranks, rows in logs.items():
        (words.out / f"all_reduce-{ranks}.log").write_text(log_text(ranks, rows), encoding="utf-8")
    (words.out / "loopback.toml").write_text(fabric_text(logs, source), encoding="utf-8")
    print(f"written to {words.out}: {', '.join(sorted(path.name for path in words.out.iterdir()))}")


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("mine"))
    parser.add_argument("--rounds", type=int, default=5, help="more on a busy machine")
    parser.add_argument("--quick", action="store_true", help="a few small sizes: to see that it works, no more")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2], help="sizes of the groups of gloo")
    return parser.parse_args()


def seconds(work: Callable[[], object], *, tries: int = 5) -> float:
    """Processor time of one call, s, the median of some tries. The first call warms up and says how many make one."""
    started_s = time.process_time()
    work()
    calls = max(1, round(SAMPLE_S / max(time.process_time() - started_s, 1e-7)))
    times_s = []
    for _ in range(tries):
        started_s = time.process_time()
        for _ in range(calls):
            work()
        times_s.append((time.process_time() - started_s) / calls)
    return statistics.median(times_s)


# --- kernels ---------------------------------------------------------------------------------------------------------

def gemms(scale: Scale) -> Iterator[tuple[tuple, float]]:
    """(m, n, k) and s of one product: the mean over the three ways in which a training step lays operands out.

    The first operand is as the kernel before left it, the second (a weight, a kept activation) comes cold, as serried
    counts a product: it is taken from so many copies in turn that the last cache cannot hold them.
    """
    shapes = [(tokens, n, k) for tokens in scale.tokens for n, k in WIDTHS]
    shapes += [(n, k, tokens) for tokens in scale.tokens for n, k in WEIGHT_GRADIENTS]
    for m, n, k in dict.fromkeys(shapes):
        rows, turned_rows = torch.randn(m, k), torch.randn(k, m).t()
        count = min(-(-scale.cold_bytes // (k * n * FLOAT_BYTES)), MOST_COPIES)
        columns = [torch.randn(k, n) for _ in range(count)]
        turned_columns = [torch.randn(n, k).t() for _ in range(count)]
        ways = ((rows, turned_columns), (rows, columns), (turned_rows, columns))
        yield (m, n, k), sum(_product_s(first, second) for first, second in ways) / len(ways)


def _product_s(first: Tensor, seconds_in_turn: list[Tensor]) -> float:
    second = itertools.cycle(seconds_in_turn)
    return seconds(lambda: first @ next(second))


def attentions(scale: Scale) -> Iterator[tuple[tuple, float]]:
    """(sequences, tokens, heads, key heads, head width, "forward" | "backward") and s."""
    for sequences, tokens in scale.sequences:
        for heads, shared, width in ((4, 2, 64), (8, 8, 32), (4, 4, 128)):
            query = torch.randn(sequences, heads, tokens, width, requires_grad=True)
            key, value = (torch.randn(sequences, shared, tokens, width, requires_grad=True) for _ in range(2))

            def run(query: Tensor = query, key: Tensor = key, value: Tensor = value) -> Tensor:
                return functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)

            shape = (sequences, tokens, heads, shared, width)
            yield from both_ways(shape, run, (query, key, value))


def memories(scale: Scale) -> Iterator[tuple[tuple, float]]:
    """(name, bytes read, bytes written, kernels) and s of what a decoder does beside its products.

    Bytes and kernels are counted as serried's workload counts them (one visit of each operand a kernel), whatever this
    library makes of it: the ratio is the library's.
    """
    for count in (2**12, 2**16, 2**18, 2**20, scale.cold_bytes // 16, scale.cold_bytes // 4):
        one, other, result = torch.randn(count), torch.randn(count), torch.empty(count)
        moved = count * FLOAT_BYTES
        yield ("copy", moved, moved, 1), seconds(lambda o=other, r=result: r.copy_(o))
        yield ("add", 2 * moved, moved, 1), seconds(lambda a=one, b=other, r=result: torch.add(a, b, out=r))
    for tokens in scale.tokens:
        for width in (256, 768):
            yield from norms(tokens, width)
            yield from activations(tokens, width)
        yield from rotations(tokens, 6, 64)
        yield from losses(tokens, 1024)
    for count in (2**16, 2**19, 2**21, 3 * 2**20):
        yield from updates(count)


def both_ways(shape: tuple, run: Callable[[], Tensor], inputs: tuple[Tensor, ...], *,
              back: tuple | None = None) -> Iterator[tuple[tuple, float]]:
    """s of forward, under `shape` + ("forward",), and of backward: both together less forward."""
    forward_s = seconds(run)
    gradient = torch.randn_like(run())
    both_s = seconds(lambda: torch.autograd.grad(run(), inputs, gradient))
    yield (*shape, "forward") if back is None else shape, forward_s
    yield (*shape, "backward") if back is None else back, max(both_s - forward_s, 1e-9)


def norms(tokens: int, width: int) -> Iterator[tuple[tuple, float]]:
    """A norm of rows; its gradient reads the input once more."""
    rows, scale = torch.randn(tokens, width, requires_grad=True), torch.ones(width, requires_grad=True)
    moved = rows.numel() * FLOAT_BYTES
    yield from both_ways(("norm", moved, moved, 1), lambda: functional.rms_norm(rows, (width,), scale), (rows, scale),
                         back=("norm_backward", 2 * moved, moved, 2))


def activations(tokens: int, width: int) -> Iterator[tuple[tuple, float]]:
    """A gated activation on the two halves of one product's output."""
    halves = torch.randn(tokens, 2 * width, requires_grad=True)

    def run() -> Tensor:
        gate, up = halves.chunk(2, dim=-1)
        return functional.silu(gate) * up

    moved = tokens * width * FLOAT_BYTES
    yield from both_ways(("activation", 3 * moved, 2 * moved, 2), run, (halves,),
                         back=("activation_backward", 6 * moved, 3 * moved, 3))


def rotations(tokens: int, heads: int, width: int) -> Iterator[tuple[tuple, float]]:
    """Rotary positions of queries and keys, as decoder.py turns them."""
    part = torch.randn(1, heads, tokens, width, requires_grad=True)
    cosine, sine = torch.randn(tokens, width), torch.randn(tokens, width)

    def run() -> Tensor:
        first, second = part.chunk(2, dim=-1)
        return part * cosine + torch.cat((-second, first), dim=-1) * sine

    moved = part.numel() * FLOAT_BYTES
    yield from both_ways(("rotation", moved, moved, 2), run, (part,), back=("rotation_backward", moved, moved, 2))


def losses(tokens: int, vocabulary: int) -> Iterator[tuple[tuple, float]]:
    """From logits to their gradient, one kernel as serried counts a fused loss: it reads them twice and writes once."""
    logits = torch.randn(tokens, vocabulary, requires_grad=True)
    targets = torch.randint(vocabulary, (tokens,))
    moved = logits.numel() * FLOAT_BYTES
    yield ("loss", 2 * moved, moved, 1), seconds(
        lambda: torch.autograd.grad(functional.cross_entropy(logits, targets), logits))


def updates(count: int) -> Iterator[tuple[tuple, float]]:
    """Adam on so many weights: reads weight, gradient and two moments, writes all but the gradient."""
    weight = torch.randn(count, requires_grad=True)
    weight.grad = torch.randn(count)
    optimizer = torch.optim.AdamW([weight], fused=True)
    moved = count * FLOAT_BYTES
    yield ("update", 4 * moved, 3 * moved, 1), seconds(optimizer.step)


def streams(scale: Scale) -> Iterator[tuple[tuple, float]]:
    """s a byte of a copy far larger than the last cache: what the memory itself gives one core."""
    count = scale.cold_bytes
    source, result = torch.zeros(count), torch.zeros(count)
    yield ("copy",), seconds(lambda: result.copy_(source), tries=3) / (2 * count * FLOAT_BYTES)


# --- gloo ------------------------------------------------------------------------------------------------------------

def all_reduces(ranks: int, rounds: int, most_bytes: int) -> dict[int, float]:
    """Payload in bytes to s of an all-reduce over `ranks` processes, the least of many tries of the slowest rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    results = processes.get_context("spawn").SimpleQueue()
    processes.spawn(_reduce_rank, args=(ranks, port, rounds, most_bytes, results), nprocs=ranks)
    return results.get()


def _reduce_rank(rank: int, ranks: int, port: int, rounds: int, most_bytes: int,
                 results: processes.SimpleQueue) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    found: dict[int, float] = {}
    for _ in range(rounds):
        for payload_bytes in (2**power for power in range(10, most_bytes.bit_length())):
            buffer = torch.ones(payload_bytes // FLOAT_BYTES)
            times_s = torch.empty(20 if payload_bytes < 2**20 else 8, dtype=torch.float64)
            for index in range(len(times_s)):
                dist.barrier()
                started_s = time.perf_counter()
                dist.all_reduce(buffer)
                times_s[index] = time.perf_counter() - started_s
            dist.all_reduce(times_s, dist.ReduceOp.MAX)
            found[payload_bytes] = min(times_s.min().item(), found.get(payload_bytes, float("inf")))
    dist.destroy_process_group()
    if rank == 0:
        results.put(found)


def log_text(ranks: int, rows: dict[int, float]) -> str:
    """The table that nccl-tests prints: bytes, count, time in us, algorithm and bus bandwidth in GB/s."""
    lines = ["# Collective test starting: all_reduce_perf (gloo over loopback, by measure_cpu.py)"]
    lines += [f"#  Rank {rank} Group 0 Pid 0 on localhost device {rank}" for rank in range(ranks)]
    lines.append("#       size         count      type   redop    root     time   algbw   busbw #wrong"
                 "     time   algbw   busbw #wrong")
    for payload_bytes, time_s in rows.items():
        rate = payload_bytes / time_s / 1e9
        half = f"{time_s * 1e6:10.2f} {rate:8.4f} {rate * 2 * (ranks - 1) / ranks:8.4f} 0"
        lines.append(f"{payload_bytes} {payload_bytes // FLOAT_BYTES} float sum -1 {half} {half}")
    return "\n".join(lines) + "\n"


# --- files -----------------------------------------------------------------------------------------------------------

def write_gemms(path: Path, typical: Samples) -> None:
    """Columns m, n, k, dtype, time_us."""
    _write(path, ("m", "n", "k", "dtype", "time_us"),
           ((*shape, "fp32", round(time_s * 1e6, 3)) for shape, time_s in typical.items()))


def write_attentions(path: Path, typical: Samples) -> None:
    """Columns of serried's attention tables, with `phase`; nothing is cached."""
    _write(path, ("batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim", "attn_dtype", "kv_cache_dtype",
                  "step", "window_size", "phase", "time_us"),
           ((*shape, "fp32", "none", 0, 0, phase, round(time_s * 1e6, 3))
            for (*shape, phase), time_s in typical.items()))


def write_memories(path: Path, typical: Samples) -> None:
    """Columns name, read_bytes, write_bytes, kernels, time_us."""
    _write(path, ("name", "read_bytes", "write_bytes", "kernels", "time_us"),
           ((*key, round(time_s * 1e6, 3)) for key, time_s in typical.items()))


def _write(path: Path, header: tuple[str, ...], rows: Iterator[tuple]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def chip_text(typical: dict[str, Samples], source: str) -> str:
    """A chip file: one core with its share of the memory."""
    peak_flop_per_s = max(2.0 * m * n * k / time_s for (m, n, k), time_s in typical["gemm"].items())
    memory_bytes_per_s = 1.0 / typical["stream"]["copy",]
    capacity_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (os.cpu_count() or 1)
    peak = f"{peak_flop_per_s / 1e9 * 1.001:.5g} GFLOP/s"   # rounded up: no row may be above it
    figures = {
        '"matrix_peak.fp32"': (peak, "measured", f"fastest product; {source}"),
        "vector_peak": (peak, "measured", "the same units as products"),
        "hbm_bandwidth": (f"{memory_bytes_per_s / 1e9:.4g} GB/s", "measured", f"copy beyond the caches; {source}"),
        "hbm_capacity": (f"{capacity_bytes / 2**30:.4g} GiB", "specified", "memory over cores, as the system says"),
        "core_count": ("1", "specified", "one core a chip"),
    }
    for figure, level in (("scratchpad_per_core", 2), ("cache", 3)):
        if found := _cache(level):
            figures[figure] = (found, "specified", f"cache of level {level}, as the system says")
    lines = ['schema = "serried/chip/1"', 'name = "this-cpu"', "", "[facts]",
             f'title = "One core of {_processor()}"', 'vendor = "unknown"', 'family = "this-cpu"',
             'fabric = "loopback.toml"', f"year = {datetime.now(UTC).year}", "", "[figures]"]
    lines += [f'{name} = {{ value = "{value}", status = "{status}", source = "{told}" }}'
              for name, (value, status, told) in figures.items()]
    return "\n".join(lines) + "\n"


def fabric_text(logs: dict[int, dict[int, float]], source: str) -> str:
    """A fabric file: the cores of one machine, each with what the largest all-reduce moved per direction."""
    rate = max(payload_bytes * 2 * (ranks - 1) / ranks / time_s for ranks, rows in logs.items()
               for payload_bytes, time_s in rows.items())
    latency_s = min(min(rows.values()) / (2 * (ranks - 1)) for ranks, rows in logs.items())
    return "\n".join((
        'schema = "serried/fabric/1"', 'name = "loopback"', "", "[facts]", 'title = "Processes of one machine"',
        'profile = "generic"', "", "[[tier]]", 'name = "machine"', 'kind = "switch"',
        f"group_size = {max(max(logs), os.cpu_count() or 1)}", "in_network_reduction = false",
        f'bandwidth = {{ value = "{rate / 1e9:.4g} GB/s", status = "measured", '
        f'source = "fastest all-reduce; {source}" }}',
        f'latency = {{ value = "{latency_s * 1e6:.4g} us", status = "measured", '
        f'source = "shortest all-reduce, a step of its ring; {source}" }}',
        'oversubscription = { value = "1", status = "measured", source = "in the bandwidth" }', ""))


def _cache(level: int) -> str:
    """The size of a cache of the first core, "" where the system does not say."""
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        told = {name: (index / name).read_text(encoding="ascii").strip() for name in ("level", "type", "size")}
        if told["level"] == str(level) and told["type"] != "Instruction":
            return told["size"].replace("K", " KiB").replace("M", " MiB")
    return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (named[0] if named else platform.processor() or "an unknown processor").replace('"', "")


if __name__ == "__main__":
    main()
