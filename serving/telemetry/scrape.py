"""What a server's metrics port shows at two moments, and what happened between them."""

import http.client
import math
import time
import urllib.request
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from ..errors import MetricsError, UsageError

_PREFIX = "bgan_"
_MAX_BYTES = 16 * 1024 * 1024
_TIMEOUT_SECONDS = 10.0
# The server itself is asked, whatever proxy the environment names.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Scrape:
    """The samples of one moment."""

    by_name: Mapping[str, Sequence[Sample]]
    taken: float = field(default_factory=time.monotonic)
    """When, on the monotonic clock."""

    def total(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels; 0 if there are none."""
        return sum(each.value for each in self.by_name.get(name, ()) if labels.items() <= each.labels.items())

    def values(self, name: str, label: str) -> list[str]:
        """The distinct values of a label, sorted."""
        return sorted({each.labels[label] for each in self.by_name.get(name, ())})


def metrics_url(address: str) -> str:
    """The URL of host:port's metrics; a URL stays as it is. Raises UsageError if it is neither."""
    url = address if "://" in address else f"http://{address}/metrics"
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_valid &= url == address or parts.port is not None
    except ValueError:
        is_valid = False
    if not is_valid:
        raise UsageError(f"{address!r} is not the address of a metrics port; name one as localhost:9090")
    return url


def scrape(url: str) -> Scrape:
    """What a server shows now. Raises MetricsError."""
    try:
        with _opener.open(url, timeout=_TIMEOUT_SECONDS) as answer:
            text = answer.read(_MAX_BYTES).decode()
        families = list(text_string_to_metric_families(text))
    except http.client.HTTPException as error:
        raise MetricsError(f"{url} does not answer in HTTP; is it the port of the service itself?") from error
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        raise MetricsError(f"{url} does not answer ({text}); does the server run with --metrics-port?") from error
    except ValueError:
        families = []
    by_name = defaultdict(list)
    for family in families:
        for sample in family.samples if family.name.startswith(_PREFIX) else ():
            by_name[sample.name].append(sample)
    if not by_name:
        raise MetricsError(f"{url} shows no metrics of bgan; is it the port of another server?")
    return Scrape(by_name)


@dataclass(frozen=True, slots=True)
class ScrapeDelta:
    """From one scrape to a later one of the same server."""

    before: Scrape
    now: Scrape

    def growth(self, name: str, **labels: str) -> float:
        """By how much a counter grew; one that fell restarted at 0, with its server."""
        before, now = self.before.total(name, **labels), self.now.total(name, **labels)
        return now - before if now >= before else now

    def rate(self, name: str, **labels: str) -> float:
        """The growth per second."""
        return self.growth(name, **labels) / (self.now.taken - self.before.taken)

    def quantile(self, quantile: float, histogram: str, **labels: str) -> float | None:
        """A quantile of what a histogram saw, interpolated within its bucket as Prometheus does; None: nothing."""
        name = f"{histogram}_bucket"
        edges = sorted(self.now.values(name, "le"), key=float)
        counts = [self.growth(name, le=edge, **labels) for edge in edges]
        if not counts or not counts[-1]:
            return None
        rank = quantile * counts[-1]
        index = next(index for index, count in enumerate(counts) if count >= rank)
        lower, below = (float(edges[index - 1]), counts[index - 1]) if index else (0.0, 0.0)
        upper = float(edges[index])
        return lower if math.isinf(upper) else lower + (upper - lower) * (rank - below) / (counts[index] - below)
