"""Who evaluates the candidates of a search: this process, several, or a Ray cluster. The answers are the same.

What is evaluated is a function that is sent once to every worker, and items that are sent in small chunks; results come
back in the order of the items, whoever was first.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Protocol

from serried.errors import BadInput

__all__ = ["Workers", "in_process", "on_ray", "processes", "workers_of"]



class Workers(Protocol):
    """What a search needs of those who work for it."""

    def map(self, items: Sequence[Any]) -> list[Any]:
        """The function of every item, in their order."""
        ...


class _Here:
    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def map(self, items: Sequence[Any]) -> list[Any]:
        return [self.function(item) for item in items]


class _Pool:
    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self.pool = pool

    def map(self, items: Sequence[Any]) -> list[Any]:
        return list(self.pool.map(_run, items))


class _Ray:
    def __init__(self, ray: Any, function: Callable[[Any], Any]) -> None:
        self.ray, self.function, self.run = ray, ray.put(function), ray.remote(_apply)

    def map(self, items: Sequence[Any]) -> list[Any]:
        return list(self.ray.get([self.run.remote(self.function, item) for item in items]))


#: The function of this worker process.
_installed: list[Callable[[Any], Any]] = []


def _install(function: Callable[[Any], Any]) -> None:
    _installed[:] = [function]


def _run(item: Any) -> Any:
    return _installed[0](item)


def _apply(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)


@contextlib.contextmanager
def in_process(function: Callable[[Any], Any]) -> Iterator[Workers]:
    """This process alone."""
    yield _Here(function)


@contextlib.contextmanager
def processes(function: Callable[[Any], Any], count: int) -> Iterator[Workers]:
    """`count` new processes, started afresh ("spawn"), so that nothing of this one leaks into them."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_install, initargs=(function,)) as pool:
        yield _Pool(pool)


@contextlib.contextmanager
def on_ray(function: Callable[[Any], Any], count: int = 0) -> Iterator[Workers]:
    """The Ray cluster that RAY_ADDRESS names, else one on this machine with `count` workers (0 = one a core)."""
    try:
        ray = importlib.import_module("ray")
    except ImportError:
        raise BadInput(field="--workers-on", value="ray", expected="Ray beside serried",
                       remedy="Install it: pip install 'serried[ray]'; or work in processes.") from None
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, include_dashboard=False, **({"num_cpus": count} if count else {}))
    try:
        yield _Ray(ray, function)
    finally:
        if started:
            ray.shutdown()


def workers_of(function: Callable[[Any], Any], *, count: int = 1, engine: str = "processes",
               ) -> contextlib.AbstractContextManager[Workers]:
    """Workers as the command line asks for them: engine "processes" or "ray"."""
    if engine == "ray":
        return on_ray(function, count if count > 1 else 0)
    return in_process(function) if count == 1 else processes(function, count)
