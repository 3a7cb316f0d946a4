"""One schedule: clients, a world of trouble, and the real reconciler, from one seed; then peace, in which all must end.

A client that is not answered asks again with the same key, as ours does. What it was told must be true for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from serried.control.amending import check_follows, followed
from serried.control.books import Books
from serried.control.charter import Charter
from serried.control.history import check_history
from serried.control.ledger import LedgerLost
from serried.control.reconciler import Cancel, Command, Drain, Open, Reconciler, Submit
from serried.control.retrace import retrace
from serried.control.spec import Health, JobSpec, Terms, Topology
from serried.errors import BadInput, SerriedError
from serried.fleet import JobStatus, Tenant
from serried.runners import Node
from tests.control.world import SECOND_NS, Crash, Violation, World, WorldEngine, WorldLedger

BEGAN_NS = 1_700_000_000 * SECOND_NS
POLICIES = ("fair", "preempting", "full", "strict", "fair+fragmentation", "greedy+random")


@dataclass
class Wish:
    """What a client wants, from when on; answered once it was told the number of its job."""

    command: Command
    from_ns: int
    answered: bool = False


class Schedule:
    """Everything of one seed. `run` raises Violation, or returns what happened."""

    def __init__(self, seed: int, *, trouble: float = 0.1, trouble_s: float = 45.0) -> None:
        self.seed = seed
        count = 3 + seed % 3
        nodes = [Node(name=f"n{place}", kind="chip", chip_count=2 + (seed // 3) % 3,
                      switches={"switch": f"s{place // 2}"}) for place in range(count)]
        # Two more may come and go: one between the others, and one under a switch and of a kind of its own.
        self.guests = [Node(name="g0", kind="chip", chip_count=2, switches={"switch": "s0"}),
                       Node(name="g1", kind="other", chip_count=4, switches={"switch": "s9"})]
        self.world = World(seed, [*nodes, *self.guests], trouble=trouble, now_ns=BEGAN_NS)
        self.ledger = WorldLedger(self.world)
        self.base = nodes
        self.charter = Charter(nodes=tuple(nodes), policy=POLICIES[seed % len(POLICIES)], seed=seed,
                               tenants=(Tenant(name="a"), Tenant(name="b", weight=2.0)))
        self.terms = Terms(silence_ns=2 * SECOND_NS, start_ns=20 * SECOND_NS)
        self.peace_ns = BEGAN_NS + int(trouble_s * SECOND_NS)
        self.wishes = self._wishes(trouble_s)
        self.told: dict[str, int] = {}
        self.lives = 0

    def _wishes(self, trouble_s: float) -> list[Wish]:
        chance, found = self.world.chance, []
        for number in range(chance.randint(3, 7)):
            workers = chance.choice((1, 1, 2, 3, 4))
            share = chance.choice((1.0, 1.0, 0.5)) if workers == 1 else 1.0
            spec = JobSpec(
                name=f"job-{number}", argv=("work",), workers=workers, share=share, tenant=chance.choice("ab"),
                priority=chance.choice((0, 0, 1)), retries=chance.choice((0, 1, 3)), backoff_s=0.5, grace_s=2.0,
                environment={"LIFE_S": f"{chance.uniform(0.5, 20):.2f}", "FAILS": chance.choice(("", "", "always"))},
                topology=Topology(level="switch", required=chance.random() < 0.2),
                health=Health(heartbeat_s=chance.choice((0.0, 30.0))), runtime_s=chance.choice((0.0, 10.0)))
            at_ns = BEGAN_NS + int(chance.uniform(0, trouble_s * 0.7) * SECOND_NS)
            found.append(Wish(command=Submit(spec=spec, key=f"key-{number}"), from_ns=at_ns))
            if chance.random() < 0.3:   # a client that did not believe the answer
                found.append(Wish(command=Submit(spec=spec, key=f"key-{number}"), from_ns=at_ns + 3 * SECOND_NS))
            if chance.random() < 0.2:
                found.append(Wish(command=Cancel(job=chance.randint(0, number)), from_ns=at_ns + 8 * SECOND_NS))
        for node in self.charter.nodes:
            if chance.random() < 0.3:
                at_ns = BEGAN_NS + int(chance.uniform(0, trouble_s) * SECOND_NS)
                found += [Wish(command=Drain(node=node.name), from_ns=at_ns),
                          Wish(command=Open(node=node.name), from_ns=at_ns + 15 * SECOND_NS)]
        return found

    def run(self) -> Books:
        """Trouble, then peace, then everything that must be true."""
        world, deadline_ns = self.world, self.peace_ns + 1200 * SECOND_NS
        while world.now_ns < deadline_ns:
            try:
                self._live(deadline_ns)
                return self._judge()
            except (Crash, LedgerLost):
                world.advance(world.now_ns + int(world.chance.uniform(0.05, 5) * SECOND_NS))
        raise Violation(f"it does not come to rest: {self._unrest()}")

    def _live(self, deadline_ns: int) -> None:
        """One life of the control plane; returns when everything is over."""
        world = self.world
        self.lives += 1
        self._change_fleet()
        there = [node.name for node in self.charter.nodes if node.name not in self.charter.absent]
        reconciler = Reconciler(self.ledger, WorldEngine(world, there), self.charter, self.terms, now_ns=world.now_ns)
        while world.now_ns < deadline_ns:
            if world.now_ns >= self.peace_ns:
                world.trouble = 0.0
            pause_s = world.chance.uniform(0.05, 0.5) if world.trouble else 1.0
            world.advance(world.now_ns + int(pause_s * SECOND_NS))
            if world.happens(0.1):
                raise Crash              # somebody restarts it, perhaps to change the fleet
            due = [wish for wish in self.wishes if not wish.answered and wish.from_ns <= world.now_ns]
            for wish, answer in zip(due, reconciler.step(world.now_ns, [wish.command for wish in due]), strict=True):
                self._answered(wish, answer)
            if not world.trouble and self._is_over(reconciler.books):
                return
        raise Violation(f"it does not come to rest: {self._unrest()}")

    def _change_fleet(self) -> None:
        """Guests come and go, and the policy changes, as far as the ledger lets them."""
        books = Books.read(self.ledger)
        if books is None or self.world.chance.random() < 0.3:
            return
        chance, gone = self.world.chance, set(books.charter.absent)
        was = {node.name for node in books.charter.nodes} - gone
        declared = [node for node in (*self.guests, *self.base) if node in self.base
                    or (node.name in was) != (chance.random() < 0.5)]
        nodes, absent = followed(books.charter, declared)
        policy = chance.choice((books.charter.policy, *POLICIES))
        wanted = replace(books.charter, nodes=nodes, absent=absent, policy=policy)
        try:
            check_follows(books, wanted)
        except BadInput:          # a guest is still needed
            wanted = books.charter
        self.charter = wanted

    def _answered(self, wish: Wish, answer: int | SerriedError) -> None:
        if isinstance(wish.command, Submit):
            if not isinstance(answer, int) or self.told.setdefault(wish.command.key, answer) != answer:
                raise Violation(f"{wish.command.key} was told {self.told.get(wish.command.key)}, and now {answer}")
            wish.answered = True
        elif isinstance(answer, int) or not isinstance(wish.command, Cancel):
            wish.answered = True
        else:
            wish.from_ns += 5 * SECOND_NS   # the job that it would cancel is not there yet
            wish.answered = wish.from_ns > self.peace_ns

    def _is_over(self, books: Books) -> bool:
        return (all(wish.answered for wish in self.wishes) and not books.attempts
                and all(status == JobStatus.DONE for status in books.state.status_J))

    def _unrest(self) -> str:
        books = Books.of(self.ledger.records)
        return f"{dict(enumerate(books.state.status_J))}, {list(books.attempts.values())}, lives {self.lives}"

    def _judge(self) -> Books:
        books = Books.of(self.ledger.records)
        for key, number in self.told.items():
            spec = next(wish.command.spec for wish in self.wishes
                        if isinstance(wish.command, Submit) and wish.command.key == key)
            if books.by_key.get(key) != number or books.stories[number].spec != spec:
                raise Violation(f"{key} was acknowledged as job {number}, and is lost")
        if len(books.stories) != len(self.told):
            raise Violation("jobs that nobody submitted")
        check_history(self.ledger.records)
        retrace(self.ledger.records)
        return books
