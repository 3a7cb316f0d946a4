"""Train a small decoder with data parallelism over gloo, in a way that any rank may die at any instant.

Each rank is one process with torchrun's variables (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), so `serried submit`,
torchrun or a shell loop start it alike. Of serried's variables it uses, where they are set,

    SERRIED_CHECKPOINT  folder of checkpoints and of the loss curve (default: `checkpoints` here)
    SERRIED_HEARTBEAT   file in which it says "step busy_s", so that a hang or a straggler is seen
    SERRIED_ATTEMPT     which attempt this is, written into the curve

Why a run that was killed and resumed draws the very curve of one that was not: data follow from (seed, step, rank)
alone; a checkpoint holds all that a step depends on; it has its name only once it is whole on the disk; and each rank
computes with a fixed number of threads, so that sums are taken in one order.

    python train.py --steps 60 --checkpoint-every 10
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from decoder import Decoder, read_config
from torch import Tensor
from torch.nn import functional

HERE = Path(__file__).resolve().parent
KEPT_CHECKPOINTS = 2


def main() -> None:
    """One rank, from the newest whole checkpoint to the last step."""
    words = arguments()
    torch.set_num_threads(words.threads)
    dist.init_process_group("gloo", timeout=timedelta(seconds=words.timeout))
    rank, folder = dist.get_rank(), Path(os.environ.get("SERRIED_CHECKPOINT") or HERE / "checkpoints")
    folder.mkdir(parents=True, exist_ok=True)
    beat(0, 0.0)   # the gang has met: silence from here on is a hang, no longer a slow start
    torch.manual_seed(words.seed)
    config = read_config(words.config)
    model = Decoder(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=words.learning_rate, fused=True)
    task = SuccessorTask(words.seed, config["vocab_size"])
    curve = Curve(words.curve or folder / "curve.jsonl")
    first = resume(folder, model, optimizer)
    if rank == 0:
        print(f"{dist.get_world_size()} ranks, {sum(p.numel() for p in model.parameters()):,} parameters, "
              f"from step {first} of {words.steps}", flush=True)
    for step in range(first, words.steps):
        tokens = task.batch(step, rank, words.batch, words.sequence)
        started_s, cpu_started_s = time.perf_counter(), time.process_time()
        loss, busy_s = train_step(model, optimizer, tokens)
        step_time_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_started_s
        beat(step + 1, busy_s)
        if rank == 0:
            curve.append(step, loss, step_time_s=step_time_s, busy_s=busy_s, cpu_s=cpu_s)
            if (step + 1) % words.checkpoint_every == 0 or step + 1 == words.steps:
                save(folder, step + 1, model, optimizer)
    dist.barrier()   # nobody leaves while rank 0 still saves
    dist.destroy_process_group()


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", type=Path, default=HERE / "config.json")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--sequence", type=int, default=128, help="tokens of a sequence")
    parser.add_argument("--batch", type=int, default=8, help="sequences of one rank in one step")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--checkpoint-every", type=int, default=10, help="steps")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--timeout", type=float, default=60.0, help="s that a rank waits for the others")
    parser.add_argument("--curve", type=Path, default=None, help="JSON lines; default: beside the checkpoints")
    return parser.parse_args()


class SuccessorTask:
    """Sequences in which nine tokens of ten follow from the one before, by a table that the model has to learn."""

    def __init__(self, seed: int, vocabulary: int) -> None:
        self.seed, self.vocabulary = seed, vocabulary
        self.successor = torch.randperm(vocabulary, generator=torch.Generator().manual_seed(seed))

    def batch(self, step: int, rank: int, batch: int, sequence: int) -> Tensor:
        """Tokens (batch, sequence + 1) that follow from seed, step and rank alone, whatever ran before."""
        source = torch.Generator().manual_seed((self.seed * 1_000_003 + step) * 65_537 + rank)
        tokens = torch.randint(self.vocabulary, (batch, sequence + 1), generator=source)
        follows = torch.rand(batch, sequence + 1, generator=source) < 0.9
        for place in range(1, sequence + 1):
            tokens[:, place] = torch.where(follows[:, place], self.successor[tokens[:, place - 1]], tokens[:, place])
        return tokens


def train_step(model: Decoder, optimizer: torch.optim.Optimizer, tokens: Tensor) -> tuple[float, float]:
    """One step of the whole gang: (mean loss over the ranks, s that this rank itself was busy)."""
    started_s = time.perf_counter()
    logits = model(tokens[:, :-1])
    loss = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    busy_s = time.perf_counter() - started_s
    mean_loss = average_gradients(model.parameters(), loss.detach())
    started_s = time.perf_counter()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return mean_loss, busy_s + time.perf_counter() - started_s


def average_gradients(parameters: Iterable[Tensor], loss: Tensor) -> float:
    """Replace every gradient by its mean over the ranks, in one all-reduce; the loss travels with them."""
    gradients = [parameter.grad for parameter in parameters]
    bucket = torch.cat([gradient.flatten() for gradient in gradients] + [loss.reshape(1)])
    dist.all_reduce(bucket)
    bucket /= dist.get_world_size()
    parts = bucket[:-1].split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
    return bucket[-1].item()


def save(folder: Path, step: int, model: Decoder, optimizer: torch.optim.Optimizer) -> None:
    """A checkpoint after `step` steps: written aside, brought to the disk, and only then given its name."""
    path, aside = checkpoint_path(folder, step), folder / "unfinished.part"
    with aside.open("wb") as file:
        torch.save({"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    _sync_folder(folder)
    for old in checkpoints(folder)[KEPT_CHECKPOINTS:]:
        old.unlink()


def resume(folder: Path, model: Decoder, optimizer: torch.optim.Optimizer) -> int:
    """Load the newest checkpoint that can be read, the same on every rank; the step to go on from, 0 without one.

    Rank 0 chooses, so that no rank sees another one's later or half-deleted file.
    """
    chosen = torch.zeros(1, dtype=torch.int64)
    if dist.get_rank() == 0:
        for path in checkpoints(folder):
            try:
                chosen[0] = _read(path)["step"]
                break
            except (OSError, RuntimeError, KeyError, EOFError, ValueError) as error:
                print(f"{path.name} cannot be read, the one before it is taken: {error}", file=sys.stderr, flush=True)
    dist.broadcast(chosen, 0)
    step = int(chosen.item())
    if step:
        state = _read(checkpoint_path(folder, step))
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    return step


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, the newest first."""
    return sorted(folder.glob("step-*.pt"), reverse=True)


def checkpoint_path(folder: Path, step: int) -> Path:
    """Name of the checkpoint after `step` steps."""
    return folder / f"step-{step:09d}.pt"


def _read(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def beat(step: int, busy_s: float) -> None:
    """Say that this rank lives: one whole line, put in place of the last. A full disk must not end the training."""
    name = os.environ.get("SERRIED_HEARTBEAT")
    if not name:
        return
    aside = Path(f"{name}.part")
    with contextlib.suppress(OSError):
        aside.write_text(f"{step} {busy_s:.6f}\n", encoding="ascii")
        aside.replace(name)


class Curve:
    """The loss curve over all attempts, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.attempt = os.environ.get("SERRIED_ATTEMPT", "")
        self.restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))

    def append(self, step: int, loss: float, **seconds: float) -> None:
        """One write, so that a kill leaves whole lines; a loss in full, so that two runs can be compared bit by bit.

        seconds: by the clock on the wall, of this rank's own work, and of processor time, which a neighbour's work on
        the same machine does not stretch.
        """
        line = json.dumps({"attempt": self.attempt, "restarts": self.restarts, "step": step, "loss": loss,
                           **{name: round(value, 6) for name, value in seconds.items()}}) + "\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode("ascii"))
        finally:
            os.close(handle)


if __name__ == "__main__":
    main()
