"""The `serried` command: verbs, and what an error looks like."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence

import typer

from serried.errors import BadInput, NoAnswer, SerriedError

__all__ = ["main"]

#: verb -> what it answers; each is the function `command` of `serried.cli.<verb>`. A verb of two words ("fleet replay")
#: is that of `serried.cli.<first>_<second>`.
VERBS = {
    "gap": "How far is this fleet from a rival, at which layer, and what to do next?",
    "plan": "Which layouts of this job are best on this fleet, and how long does a step take?",
    "evidence": "Is it true? Predicted beside measured, with intervals.",
    "calibrate": "Fit a chip's kernel profile, a fabric or a stack on your own measurements.",
    "fleet replay": "How much of a fleet does a placement rule hand out, jobs arriving one by one?",
    "serve simulate": "What do requests of a trace see on this deployment, and what does a token cost?",
    "fleet simulate": "What becomes of a fleet over days: goodput, and where every other chip-hour went?",
    "fleet compare": "Which policy serves this fleet best, on the same jobs and the same failures?",
    "fleet retrace": "Did the live fleet decide as the simulator does, and was no chip ever held twice?",
    "collective synthesise": "Which schedule fits these wires, and how close is it to the best possible?",
    "collective verify": "Does this plan do what it says, on every rank, without deadlock?",
    "collective run": "What does this plan take for real, as processes on this machine?",
    "catalogue": "Which chips, fabrics, fleets, models and stacks are known, and from whom?",
    "fabric build": "Write a topology: a kind of fabric and its parameters.",
    "fabric show": "What is in a fabric: tiers, counts, bisection, oversubscription?",
    "fabric import": "Read a topology from Slurm, Kubernetes, NCCL or a table of hosts.",
    "fabric export": "Write a topology for Slurm or Kubernetes.",
    "collective choose": "Which algorithm and protocol for which size on this fabric?",
    "collective simulate": "How long does a collective take with contention, failures and other jobs?",
    "collective import": "Is my bus bandwidth acceptable at this number of nodes?",
    "up": "Run a control plane on this machine: gangs as real processes, and nothing lost.",
    "down": "End the control plane, its jobs and whatever runs them.",
    "submit": "Hand a job to the control plane: a command or a managed workload.",
    "jobs": "What was submitted, and how does it stand?",
    "job": "One job, rank by rank: what happened to it?",
    "logs": "What did a rank write?",
    "cancel": "End jobs.",
    "why": "What does a job wait for?",
    "drain": "Take nodes out of service, gently.",
    "open": "Let drained nodes take work again.",
    "top": "The fleet as it lives: chips, jobs, nodes.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (the console script passes it to the shell)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = _application(words)(args=words or ["--help"], prog_name="serried", standalone_mode=False)
    except SerriedError as error:
        _explain(error, as_json="--json" in words)
        return error.exit_code
    except typer.exceptions.TyperException as error:
        _usage(error.format_message(), as_json="--json" in words)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    return result if isinstance(result, int) else 0


#: First word of verbs of two -> what they are about.
GROUPS = {
    "fleet": "Many jobs, many chips: who runs where?",
    "serve": "Requests through time on one deployment.",
    "fabric": "The wires: build, show, import and export topologies.",
    "collective": "Collectives on the wires: choose, simulate, judge, fit, prove, run.",
}


def _application(words: Sequence[str]) -> typer.Typer:
    """The verb that is asked for, alone: its imports are the only ones paid for. All verbs when none is named."""
    app = _typer("serried: the open stack above the chip.")
    app.callback()(_serried)
    groups: dict[str, typer.Typer] = {}
    for verb in _asked(words):
        module = importlib.import_module(f"serried.cli.{verb.replace(' ', '_').replace('-', '_')}")
        group, _, last = verb.rpartition(" ")
        if group and group not in groups:
            groups[group] = _typer(GROUPS[group])
            app.add_typer(groups[group], name=group, help=GROUPS[group], short_help=GROUPS[group])
            groups[group].callback()(_serried)
        (groups[group] if group else app).command(name=last, help=VERBS[verb], short_help=VERBS[verb])(module.command)
    return app


def _typer(about: str) -> typer.Typer:
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, help=about,
                       no_args_is_help=True)


def _asked(words: Sequence[str]) -> list[str]:
    """The verb that the words name; the verbs of the group that they name; else every verb."""
    named = [word for word in words if not word.startswith("-")]
    asked = [verb for verb in VERBS if verb.split() == named[:len(verb.split())]]
    return asked or [verb for verb in VERBS if verb.split()[:1] == named[:1] and " " in verb] or list(VERBS)


def _serried() -> None:
    """serried: the open stack above the chip."""


def _usage(message: str, *, as_json: bool) -> None:
    """A command line that names no verb, lacks an option, or has one that is not known."""
    if as_json:
        print(json.dumps({"schema": "serried/error/1", "error": "bad input", "message": message}))
    print(f"serried: {message}\n  `serried --help` lists the verbs, `serried VERB --help` their options.",
          file=sys.stderr)


def _explain(error: SerriedError, *, as_json: bool) -> None:
    if as_json:
        names = ("file", "field", "value", "expected", "remedy", "binding")
        kind = "no answer" if isinstance(error, NoAnswer) else "bad input"
        print(json.dumps({"schema": "serried/error/1", "error": kind, "message": str(error)}
                         | {name: str(getattr(error, name)) for name in names if hasattr(error, name)}))
    if isinstance(error, BadInput):
        where = f"{error.file}: {error.field}" if error.file else error.field
        found = f"{where} is not given" if error.value is None else f"{where} = {error.value!r}"
        text = f"serried: bad input\n  {found}\n  expected {error.expected}\n  {error.remedy}"
    else:
        binding = f"\n  binding: {error.binding}" if isinstance(error, NoAnswer) and error.binding else ""
        text = f"serried: no answer\n  {error}{binding}"
    print(text, file=sys.stderr)
