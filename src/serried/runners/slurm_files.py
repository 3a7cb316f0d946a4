"""What the Slurm engine has on disk: a directory that this machine and every node share.

    STATE/identity                   what tells this fleet's jobs and processes from those of another control plane
    STATE/launcher-HASH.py           copy of `slurm_rank`, which the nodes run
    STATE/nodes/N.incarnation        the life of node N; launchers of an earlier one run nothing
    STATE/nodes/N.life               the last life of which nothing runs, and the last in which it was told to work
    STATE/attempts/J.E/order.json    the rows of attempt J.E that were ordered
    STATE/attempts/J.E/NAME.job      which rows a Slurm job of that name was, or was about to be, submitted for
    STATE/attempts/J.E/NAME.out      what its batch script and srun had to say
    STATE/attempts/J.E/N.row         what the launcher on node N runs
    STATE/attempts/J.E/N.claim       who decided about the row: "run JOB" a launcher, "stop WHY" we; linked once
    STATE/attempts/J.E/N.stop        seconds of grace of an order to stop
    STATE/attempts/J.E/N.seen        the launcher's last word
    STATE/attempts/J.E/forgotten     to be removed as soon as Slurm has no job of it
    STATE/logs/J.E/rank.R.log        output of rank R; people read it when the attempt is long forgotten
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from serried.runners import slurm_rank
from serried.runners.environment import rank_environment
from serried.runners.slurm_rank import claim, incarnation_of, write_whole
from serried.runners.spec import AttemptId, Beat, Launch, Node, Phase, RankSeen, Row, TaskSeen

__all__ = ["AttemptFiles", "Life", "StateFiles"]


@dataclass(frozen=True, slots=True)
class Life:
    """The lives of a node, counted from 1. current: the one that launchers may start for. fenced: the last of which
    nothing runs. returned: the last in which it was told to work. All is well where returned = current; in between it
    is being fenced (fenced < current - 1), or is and has not come back."""

    current: int
    fenced: int
    returned: int


class StateFiles:
    """The state directory of one engine."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._lives: dict[str, Life] = {}
        (self.root / "nodes").mkdir(parents=True, exist_ok=True)
        (self.root / "attempts").mkdir(exist_ok=True)
        claim(self.root / "identity", secrets.token_hex(4))
        self.identity = (self.root / "identity").read_text(encoding="ascii")
        source = Path(slurm_rank.__file__).read_text(encoding="utf-8")
        self.launcher = self.root / f"launcher-{hashlib.sha256(source.encode()).hexdigest()[:12]}.py"
        if not self.launcher.exists():
            write_whole(self.launcher, source)

    def life(self, node: str) -> Life:
        """Where a node stands; only this engine moves it, so it is read once."""
        if node not in self._lives:
            known = self.root / "nodes" / f"{node}.life"
            fenced, returned = json.loads(known.read_text(encoding="ascii")) if known.exists() else (0, 1)
            self._lives[node] = Life(current=incarnation_of(self.root, node), fenced=fenced, returned=returned)
        return self._lives[node]

    def begin_life(self, node: str) -> None:
        """From now on no launcher of an earlier life starts anything, and those that run end within their lease."""
        life = self.life(node)
        write_whole(self.root / "nodes" / f"{node}.incarnation", str(life.current + 1))
        self._lives[node] = replace(life, current=life.current + 1)

    def end_life(self, node: str) -> None:
        """Nothing of an earlier life than the current one runs any more."""
        self._write_life(node, replace(self.life(node), fenced=self.life(node).current - 1))

    def return_life(self, node: str) -> None:
        """The node works again, in its current life."""
        self._write_life(node, replace(self.life(node), returned=self.life(node).current))

    def _write_life(self, node: str, life: Life) -> None:
        write_whole(self.root / "nodes" / f"{node}.life", json.dumps([life.fenced, life.returned]))
        self._lives[node] = life

    def attempt(self, attempt: AttemptId) -> AttemptFiles:
        """The files of one attempt, there or not."""
        return AttemptFiles(self, attempt)

    def attempts(self) -> list[AttemptFiles]:
        """All attempts of which there are files."""
        names = (entry.name.split(".") for entry in (self.root / "attempts").iterdir())
        return [AttemptFiles(self, AttemptId(int(job), int(epoch))) for job, epoch in names]


class AttemptFiles:
    """One attempt on disk, with what was read of it last."""

    def __init__(self, state: StateFiles, attempt: AttemptId) -> None:
        self.state, self.attempt = state, attempt
        self.path = state.root / "attempts" / str(attempt)
        self.rows: dict[str, tuple[int, tuple[int, ...]]] = {}   # node -> incarnation, ranks
        self.jobs: dict[str, tuple[str, ...]] = {}               # name of a Slurm job -> nodes
        self.submitted: dict[str, tuple[int, float]] = {}        # name -> number, monotonic second of Slurm's answer
        self.claims: dict[str, str] = {}
        self.words: dict[str, dict[str, Any]] = {}               # node -> the launcher's last word
        self._words_at: dict[str, tuple[int, int, int]] = {}     # node -> file and second in which it was read last
        self.heard_s: dict[str, float] = {}                      # node -> monotonic second of a new word
        self.beats: dict[int, tuple[list[Any], float]] = {}      # rank -> as told, monotonic second
        self.stops: set[str] = set()
        self.forgotten = (self.path / "forgotten").exists()
        if (self.path / "order.json").exists():
            rows = json.loads((self.path / "order.json").read_text(encoding="utf-8"))
            self.rows = {node: (incarnation, tuple(ranks)) for node, (incarnation, ranks) in rows.items()}
            for job in self.path.glob("*.job"):
                self.jobs[job.name.removesuffix(".job")] = tuple(json.loads(job.read_text(encoding="utf-8")))
        self.stops = {stop.name.removesuffix(".stop") for stop in self.path.glob("*.stop")}
        self.read()

    def order(self, launch: Launch, rows: Iterable[Row], nodes: Mapping[str, Node], terms: Mapping[str, float]) -> None:
        """Write down rows, before anything that could start them."""
        self.path.mkdir(mode=0o700, exist_ok=True)
        here = {row.node: row for row in rows}
        for row in here.values():
            mark = f"{self.state.identity}:{row.node}"
            marks = {"SERRIED_HERE": mark, "SERRIED_LIFE": row.incarnation}
            ranks = [{"rank": row.first_rank + local,
                      "environment": rank_environment(launch, row, local, nodes) | marks}
                     for local in range(row.rank_count)]
            write_whole(self.path / f"{row.node}.row", json.dumps({
                "argv": launch.argv, "directory": launch.directory, "incarnation": int(row.incarnation), "here": mark,
                "limits": {"open_files": launch.limits.open_files, "memory_bytes": launch.limits.memory_bytes,
                           "core_bytes": launch.limits.core_bytes},
                "grace_s": launch.grace_ns / 1e9, "ranks": ranks, **terms}))
        self._add_rows({row.node: (int(row.incarnation), tuple(range(row.first_rank, row.first_rank + row.rank_count)))
                        for row in here.values()})

    def _add_rows(self, rows: Mapping[str, tuple[int, tuple[int, ...]]]) -> None:
        self.rows |= rows
        write_whole(self.path / "order.json", json.dumps(self.rows))

    def name_job(self, name: str, nodes: tuple[str, ...]) -> None:
        """A Slurm job of this name is about to be submitted for these nodes."""
        write_whole(self.path / f"{name}.job", json.dumps(nodes))
        self.jobs[name] = nodes

    def bar(self, node: str, why: str) -> bool:
        """Decide that the row never runs, unless a launcher has decided otherwise."""
        self.path.mkdir(mode=0o700, exist_ok=True)
        if node not in self.claims:
            claim(self.path / f"{node}.claim", f"stop {why}")
            self.claims[node] = (self.path / f"{node}.claim").read_text(encoding="utf-8")
        if node not in self.rows:   # stopped before it was started: it is told as gone
            self._add_rows({node: (self.state.life(node).current, ())})
        return self.claims[node].startswith("stop")

    def stop(self, node: str, grace_s: float) -> None:
        """Tell the launcher to end its ranks."""
        write_whole(self.path / f"{node}.stop", repr(grace_s))
        self.stops.add(node)

    def forget(self) -> None:
        """Tell no more of it; also not after a restart."""
        if self.path.exists():
            (self.path / "forgotten").touch()
        self.forgotten = True

    def remove(self) -> None:
        """Take the files away, the orders first: a late launcher finds nothing to run."""
        for order in self.path.glob("*.row"):
            order.unlink()
        shutil.rmtree(self.path, ignore_errors=True)

    def read(self) -> None:
        """Look at what launchers have written since the last look."""
        for node in self.rows:
            if self.ended(node):
                continue
            if node not in self.claims:
                try:
                    self.claims[node] = (self.path / f"{node}.claim").read_text(encoding="utf-8")
                except FileNotFoundError:
                    continue
                self.heard_s.setdefault(node, time.monotonic())
            if self.claims[node].startswith("run"):
                self._read_word(node)

    def _read_word(self, node: str) -> None:
        path = self.path / f"{node}.seen"
        try:
            found = path.stat()
            # a file's number may be given again within one tick of its clock: now and then it is read all the same
            at = found.st_ino, found.st_mtime_ns, int(time.monotonic())
            if self._words_at.get(node) == at:
                return
            word = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        self._words_at[node] = at
        if word["told"] == self.words.get(node, {}).get("told"):
            return
        self.words[node], now_s = word, time.monotonic()
        self.heard_s[node] = now_s
        for rank, beat in word["beats"].items():
            if self.beats.get(int(rank), ([], 0.0))[0] != beat:
                self.beats[int(rank)] = (beat, now_s)

    def output_of(self, job: str) -> str:
        """The last that a batch script and its srun said."""
        try:
            return " ".join((self.path / f"{job}.out").read_text(encoding="utf-8", errors="replace").split())[-300:]
        except OSError:
            return ""

    def runs(self, node: str) -> bool:
        """A launcher decided to run the row and has not said that it ended, nor was it fenced."""
        return (self.claims.get(node, "").startswith("run") and not self.ended(node)
                and self.rows[node][0] > self.state.life(node).fenced)

    def ended(self, node: str) -> bool:
        """The launcher's last word: nothing of it is left."""
        return bool(self.words.get(node, {}).get("ended"))

    def seen(self, node: str, phase: Phase, error: str) -> TaskSeen:
        """What is told of one row; beats in nanoseconds of our monotonic clock."""
        word = self.words.get(node, {})
        ranks = tuple(RankSeen(rank=rank, pid=pid, exit_code=code, beat=self._beat(rank))
                      for rank, pid, code in word.get("ranks", ()))
        return TaskSeen(attempt=self.attempt, node=node, incarnation=str(self.rows[node][0]), phase=phase, ranks=ranks,
                        error=error or word.get("error", ""))

    def _beat(self, rank: int) -> Beat | None:
        (_, line), heard_s = self.beats.get(rank, ([0, ""], 0.0))
        words = line.split()
        try:
            step, busy_s = int(words[0]), float(words[1]) if len(words) > 1 else 0.0
        except (ValueError, IndexError):
            return None
        if not (0 <= step <= 2**53 and 0.0 <= busy_s <= 1e9):
            return None
        return Beat(step=step, heard_ns=round(heard_s * 1e9), busy_s=busy_s)
