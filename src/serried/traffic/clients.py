"""Many who ask, each in a way of their own: workloads composed client by client.

After ServeGen (Xiang et al. 2025): a few clients send most requests, each bunches its requests as it does and has
lengths of its own, so that the sum has bursts and drift which one process fitted to the whole lacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from serried.catalogue.entry import read_toml
from serried.errors import BadInput, nearest
from serried.traffic.arrivals import gamma
from serried.traffic.chance import ARRIVALS, INPUT, OUTPUT, PEOPLE, stream
from serried.traffic.compose import MOST_REQUESTS
from serried.traffic.lengths import lognormal
from serried.traffic.spec import Ints, Requests

__all__ = ["Client", "mix", "people", "read_clients"]

#: Field -> the range that is believed. Those without a default must be written.
_RANGES: Mapping[str, tuple[float, float]] = {
    "rate_per_s": (1e-9, 1e9), "input_median": (1, 1e8), "output_median": (1, 1e8), "variation": (1e-3, 1e3),
    "input_sigma": (0, 10), "output_sigma": (0, 10), "longest": (1, 1e8), "count": (1, 1e6), "skew": (0, 10),
    "between": (0, 10)}
_WHOLE = {"longest", "count"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One who asks, or `count` of a kind: rate, burstiness, lengths (medians and deviations of their logarithms).

    rate_per_s: of all `count` together, the k-th of whom sends in proportion to k ** -skew; between: deviation of the
    logarithms of their medians from each other. variation: of the gaps of one client. name: the class of its requests.
    """

    rate_per_s: float
    input_median: float
    output_median: float
    variation: float = 1.0
    input_sigma: float = 0.0
    output_sigma: float = 0.0
    longest: int = 100_000
    count: int = 1
    skew: float = 0.0
    between: float = 0.0
    name: str = "all"


def read_clients(path: Path) -> list[Client]:
    """Clients of a TOML file: one [[client]] each, with the fields of `Client`. BadInput names client and field."""
    tables = read_toml(path).get("client")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise BadInput(file=str(path), field="client", value=tables, expected="one [[client]] table per client",
                       remedy="Write rate_per_s, input_median and output_median below each.")
    return [_client(table, f"client {number}", path) for number, table in enumerate(tables, 1)]


def _client(table: Mapping[str, Any], which: str, path: Path) -> Client:
    known = [column.name for column in fields(Client)]
    for key, value in table.items():
        if key not in known:
            raise BadInput(file=str(path), field=f"{which}: {key}", value=value, expected="a field of a client",
                           remedy=f"Known: {', '.join(nearest(key, known) or known)}.")
    if not isinstance(table.get("name", ""), str):
        raise BadInput(file=str(path), field=f"{which}: name", value=table["name"], expected="a text",
                       remedy='Write for example name = "chat".')
    for key, (low, high) in _RANGES.items():
        value = table.get(key)
        if value is None and key not in ("rate_per_s", "input_median", "output_median"):
            continue
        kinds = (int,) if key in _WHOLE else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
            raise BadInput(file=str(path), field=f"{which}: {key}", value=value,
                           expected=f"a {'whole ' if key in _WHOLE else ''}number from {low:g} to {high:g}",
                           remedy=f"Write for example {key} = 1.")
    return Client(**table)


def people(client: Client, random: np.random.Generator) -> list[Client]:
    """The `count` clients of a kind, each on its own."""
    if client.count == 1:
        return [client]
    share = np.arange(1, client.count + 1) ** -float(client.skew)
    rates = client.rate_per_s * share / share.sum()
    inputs, outputs = (np.maximum(median * np.exp(random.normal(0.0, client.between, client.count)), 1.0)
                       for median in (client.input_median, client.output_median))
    return [replace(client, count=1, skew=0.0, between=0.0, rate_per_s=rate, input_median=longest, output_median=answer)
            for rate, longest, answer in zip(rates.tolist(), inputs.tolist(), outputs.tolist(), strict=True)]


def mix(clients: Sequence[Client], duration_s: float, seed: int) -> Requests:
    """All clients' requests in a window, in order of arrival; one class for every name."""
    expected = sum(client.rate_per_s for client in clients) * duration_s
    if not 0.0 < expected <= MOST_REQUESTS:
        raise BadInput(field="duration", value=duration_s, expected=f"a window with 1 to {MOST_REQUESTS:,} requests",
                       remedy=f"The clients send about {expected:,.0f} in it.")
    names = tuple(dict.fromkeys(client.name for client in clients))
    columns = [_sent(one, names.index(one.name), duration_s, (seed, number, person))
               for number, client in enumerate(clients)
               for person, one in enumerate(people(client, stream(seed, number, PEOPLE)))]
    arrival_ns, inputs, outputs, classes = (np.concatenate(column) for column in zip(*columns, strict=True))
    if not len(arrival_ns):
        raise BadInput(field="duration", value=duration_s, expected="a window in which somebody asks",
                       remedy="Lengthen it.")
    order = np.argsort(arrival_ns, kind="stable")
    return Requests(arrival_ns_R=arrival_ns[order], input_tokens_R=inputs[order], output_tokens_R=outputs[order],
                    class_R=classes[order], class_names=names)


def _sent(client: Client, code: int, duration_s: float, who: tuple[int, int, int]) -> tuple[Ints, Ints, Ints, Ints]:
    """What one client sends: arrivals, prompts, answers, class."""
    mean = client.rate_per_s * duration_s
    enough = round(1.5 * mean + 10.0 * max(client.variation, 1.0) * np.sqrt(mean + 1.0))
    arrival_ns = gamma(client.rate_per_s, enough, stream(*who, ARRIVALS), variation=client.variation,
                       until_s=duration_s)
    inputs, outputs = (lognormal(median, len(arrival_ns), stream(*who, what), sigma=sigma, longest=client.longest)
                       for what, median, sigma in ((INPUT, client.input_median, client.input_sigma),
                                                   (OUTPUT, client.output_median, client.output_sigma)))
    return arrival_ns, inputs, outputs, np.full(len(arrival_ns), code, dtype=np.int64)
