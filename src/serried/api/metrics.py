"""/metrics: the control loop's figures and the door's own, as Prometheus reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from serried.control.spec import Usage

__all__ = ["exposition"]


def exposition(registry: CollectorRegistry, counters: Mapping[str, float], usage: Usage) -> bytes:
    """The text of the page: what the registry holds, and a picture of the fleet taken just now."""
    now = CollectorRegistry(auto_describe=False)
    now.register(_Picture([*_counted(counters), *_fleet(usage)]))
    return generate_latest(registry) + generate_latest(now)


class _Picture:
    """Figures of one moment."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        return self._families


def _counted(counters: Mapping[str, float]) -> Iterable[Metric]:
    """A figure whose name ends in _total only grows; any other goes up and down."""
    for name, value in sorted(counters.items()):
        known = "serried_" + re.sub(r"\W", "_", name.removeprefix("serried_"), flags=re.ASCII)
        about = f"{name.removeprefix('serried_').replace('_', ' ')} of the control loop"
        family: Metric = CounterMetricFamily(known, about, value=value) if known.endswith("_total") else \
            GaugeMetricFamily(known, about, value=value)
        yield family


def _fleet(usage: Usage) -> Iterable[Metric]:
    chips = GaugeMetricFamily("serried_chips", "Chips of the fleet.", labels=("state",))
    idle = usage.chip_count - usage.busy_chips - usage.down_chips
    for state, count in (("busy", usage.busy_chips), ("down", usage.down_chips), ("idle", idle)):
        chips.add_metric((state,), count)
    jobs = GaugeMetricFamily("serried_jobs", "Jobs by phase.", labels=("phase",))
    for phase, count in sorted(usage.jobs_by_phase.items()):
        jobs.add_metric((str(phase),), count)
    tenants = GaugeMetricFamily("serried_tenant_chips", "Chips that a tenant holds.", labels=("tenant",))
    for tenant, held in sorted(usage.chips_by_tenant.items()):
        tenants.add_metric((tenant,), held)
    yield from (chips, jobs, tenants,
                GaugeMetricFamily("serried_ledger_records", "Records of the ledger.", value=usage.records))
