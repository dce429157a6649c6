"""What a server shows on its metrics port at two moments, and what went on between them."""

from __future__ import annotations

import http.client
import math
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from ..errors import MetricsError

_PREFIX = "bgan_"
_BYTES_AT_MOST = 16 * 1024 * 1024
_SECONDS_AT_MOST = 10.0
# The server itself is asked, whatever proxy the environment names.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Sample:
    """One number of a scrape."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Scrape:
    """One scrape."""

    by_name: Mapping[str, list[Sample]]
    taken: float = field(default_factory=time.monotonic)
    """When, on the monotonic clock."""

    def total(self, name: str, **labels: str) -> float:
        """The sum of those that have these labels; 0 if there is none."""
        return sum(each.value for each in self.by_name.get(name, ()) if labels.items() <= each.labels.items())

    def values(self, name: str, label: str) -> list[str]:
        """The values of a label, in order."""
        return sorted({each.labels[label] for each in self.by_name.get(name, ())})


def metrics_url(address: str) -> str:
    """Where host:port, or a whole URL, shows its metrics. Raises MetricsError if it is neither."""
    url = address if "://" in address else f"http://{address}/metrics"
    try:
        parts = urlsplit(url)
        is_known = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_whole = "://" in address or parts.port is not None
    except ValueError:
        is_known = is_whole = False
    if not (is_known and is_whole):
        raise MetricsError(f"{address!r} is no address of a metrics port; name one as localhost:9090")
    return url


def scrape(url: str) -> Scrape:
    """What a server shows now. Raises MetricsError."""
    try:
        with _opener.open(url, timeout=_SECONDS_AT_MOST) as answer:
            text = answer.read(_BYTES_AT_MOST).decode()
        families = list(text_string_to_metric_families(text))
    except http.client.HTTPException as error:
        raise MetricsError(f"{url} does not answer in HTTP; is it the port of the service itself?") from error
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        raise MetricsError(f"{url} does not answer ({text}); does the server run with --metrics-port?") from error
    except ValueError:
        families = []
    by_name: dict[str, list[Sample]] = {}
    for family in families:
        if family.name.startswith(_PREFIX):
            for each in family.samples:
                by_name.setdefault(each.name, []).append(Sample(each.labels, each.value))
    if not by_name:
        raise MetricsError(f"{url} shows no metrics of bgan; is it the port of another server?")
    return Scrape(by_name)


@dataclass(frozen=True, slots=True)
class ScrapeDelta:
    """From one scrape to a later one of the same server."""

    before: Scrape
    now: Scrape

    @property
    def seconds(self) -> float:
        """The time between them."""
        return self.now.taken - self.before.taken

    def growth(self, name: str, **labels: str) -> float:
        """By how much a counter grew; one that fell began anew at 0, with its server."""
        before, now = self.before.total(name, **labels), self.now.total(name, **labels)
        return now - before if now >= before else now

    def rate(self, name: str, **labels: str) -> float:
        """The same in a second."""
        return self.growth(name, **labels) / self.seconds

    def quantile(self, quantile: float, histogram: str, **labels: str) -> float | None:
        """Of what a histogram saw, in the middle of its bucket as Prometheus has it; None if it saw nothing."""
        name = f"{histogram}_bucket"
        edges = sorted(set(self.now.values(name, "le")), key=float)
        counts = [self.growth(name, le=edge, **labels) for edge in edges]
        if not counts or not counts[-1]:
            return None
        rank = quantile * counts[-1]
        place = next(place for place, count in enumerate(counts) if count >= rank)
        lower, below = (float(edges[place - 1]), counts[place - 1]) if place else (0.0, 0.0)
        if math.isinf(float(edges[place])):
            return lower
        return lower + (float(edges[place]) - lower) * (rank - below) / (counts[place] - below)
