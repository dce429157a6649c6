"""The screen of `bgan top`, which shows a running server."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import datetime
from functools import partial

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from ..config.addresses import own_address
from ..config.settings import ServerSettings
from ..errors import MetricsError, printable
from .scrape import Scrape, ScrapeDelta, scrape

_MAX_FIRST_SECONDS = 1.0
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_BARS = "▁▂▃▄▅▆▇█"
_FRAMES_BACK = 40
_REVISION_DIGITS = 8
_NOTHING = "-"
_COLORS = ("bold red", "green")  # of what is bad, of what is good


def watch(url: str, console: Console, *, interval_seconds: float, once: bool = False) -> None:
    """Show the server at a metrics URL until Ctrl-C, or `once`. Raises MetricsError if it does not answer.

    If it goes away later, wait for it. If the console is not a terminal, frames follow each other.
    """
    before = scrape(url)
    rates: deque[float] = deque(maxlen=_FRAMES_BACK)
    with ExitStack() as stack:
        show: Callable[[RenderableType], None] = console.print
        if console.is_terminal and not once:  # live frames fill the screen, which is restored afterwards
            live = stack.enter_context(Live(console=console, screen=True, auto_refresh=False))
            show = partial(live.update, refresh=True)
        time.sleep(min(interval_seconds, _MAX_FIRST_SECONDS))
        while True:
            try:
                delta = ScrapeDelta(before, scrape(url))
            except MetricsError as error:
                if once:
                    raise
                show(Group(_title(url), Text(printable(str(error)), style="red")))
            else:
                rates.append(delta.rate("bgan_images_total"))
                show(frame(url, delta, rates))
                before = delta.now
            if once:
                return
            time.sleep(interval_seconds)


def own_metrics(settings: ServerSettings) -> str:
    """Where a server of these settings shows its metrics on its machine. Raises MetricsError if it does not."""
    if not settings.metrics_port:
        raise MetricsError("no metrics port is set here; name its address, as in bgan top localhost:9090")
    return own_address(settings.metrics_host, settings.metrics_port)


def frame(url: str, delta: ScrapeDelta, rates: Iterable[float]) -> RenderableType:
    """One view of a server; `rates` are the images per second of the frames up to this one."""
    parts: list[RenderableType] = [_title(url), _totals(delta, rates), "", _models(delta)]
    if failures := int(delta.now.total("bgan_model_failures")):
        files = "1 model file" if failures == 1 else f"{failures} model files"
        parts.append(Text(f"{files} cannot be served; `bgan models` and the log say why", style="red"))
    return Group(*parts, "", _queue(delta), "", _rejected(delta))


def _title(url: str) -> RenderableType:
    grid = Table.grid("", Column(justify="right"), expand=True)
    grid.add_row(
        Text.assemble(("bgan top", "bold"), f"  {printable(url)}"), Text(f"{datetime.now():%H:%M:%S}", style="dim")
    )
    return grid


def _totals(delta: ScrapeDelta, rates: Iterable[float]) -> RenderableType:
    now = delta.now
    workers, ready = int(now.total("bgan_workers")), int(now.total("bgan_ready_workers"))
    waiting = int(now.total("bgan_queued_calls"))
    images = _count(delta.rate("bgan_images_total"))
    rate = f"[dim]images/s[/] [bold cyan]{images}[/]   [cyan]{_sparkline(rates)}[/]"
    streams = f"[dim]streams[/] [bold]{now.total('bgan_streams'):.0f}[/]"
    queue = f"[dim]waiting[/] [{'bold yellow' if waiting else 'bold'}]{waiting}[/]"
    health = f"[dim]workers ready[/] [{_COLORS[0 < workers == ready]}]{ready} of {workers}[/]"
    return Text.from_markup(f"{rate}\n{streams}   {queue}   {health}")


def _models(delta: ScrapeDelta) -> RenderableType:
    now = delta.now
    is_ready = now.total("bgan_ready_workers") > 0
    heads = [f"infer {name}" for name in _QUANTILES]
    active = ["active"] if "bgan_part_runs_total" in now.by_name else []  # of models with gates alone
    table = _table("model", "version", "revision", "ready", "images/s", "threads", *active, *heads)
    for model in now.values("bgan_model_info", "model"):
        served = _served(now, model)
        if not served:
            continue
        table.add_row(
            Text(printable(model)),
            Text("\n".join(printable(version) if version != "0" else _NOTHING for version, _ in served)),
            Text("\n".join(printable(revision[:_REVISION_DIGITS]) for _, revision in served)),
            Text("yes" if is_ready else "no", style=_COLORS[is_ready]),
            _count(delta.rate("bgan_images_total", model=model)),
            f"{delta.rate('bgan_inference_seconds_sum', model=model):.2f}",
            *(_active_share(delta, model) for _ in active),
            *_quantiles(delta, "bgan_inference_seconds", model=model),
        )
    return table


def _active_share(delta: ScrapeDelta, model: str) -> str:
    """The mean share of a model's parts that ran for an image."""
    images = delta.growth("bgan_gated_images_total", model=model)
    parts = sum(each.labels["model"] == model for each in delta.now.by_name["bgan_part_runs_total"])
    if not images or not parts:
        return _NOTHING
    return f"{delta.growth('bgan_part_runs_total', model=model) / (images * parts):.0%}"


def _served(now: Scrape, model: str) -> list[tuple[str, str]]:
    """(version, revision) of a model, the highest version first."""
    served = [
        (each.labels["version"], each.labels["revision"])
        for each in now.by_name.get("bgan_model_info", ())
        if each.value == 1 and each.labels["model"] == model
    ]
    return sorted(served, key=lambda pair: (-int(pair[0]), pair[1]))


def _queue(delta: ScrapeDelta) -> RenderableType:
    left = delta.rate("bgan_queue_seconds_count")
    if not left:
        return Text("no call left the queue", style="dim")
    times = zip(_QUANTILES, _quantiles(delta, "bgan_queue_seconds"), strict=True)
    waited = "   ".join(f"[dim]waited {name}[/] {seconds}" for name, seconds in times)
    return Text.from_markup(f"[dim]left the queue/s[/] {_count(left)}   {waited}")


def _rejected(delta: ScrapeDelta) -> RenderableType:
    now = delta.now
    table = _table("rejected calls", "per second", "total")
    for reason in now.values("bgan_rejected_total", "reason"):
        if total := now.total("bgan_rejected_total", reason=reason):
            rate = delta.rate("bgan_rejected_total", reason=reason)
            table.add_row(Text(printable(reason)), _count(rate), f"{total:,.0f}", style="yellow" if rate else "")
    return table if table.row_count else Text("no call was rejected", style="dim")


def _table(first: str, *others: str) -> Table:
    words = ("version", "revision", "ready")
    columns = [Column(each, justify="left" if each in words else "right", no_wrap=True) for each in others]
    return Table(Column(first, overflow="fold"), *columns, box=None, padding=(0, 1, 0, 0), header_style="dim")


def _quantiles(delta: ScrapeDelta, histogram: str, **labels: str) -> list[str]:
    return [_seconds(delta.quantile(quantile, histogram, **labels)) for quantile in _QUANTILES.values()]


def _seconds(value: float | None) -> str:
    if value is None:
        return _NOTHING
    return f"{1000 * value:.3g} ms" if value < 1 else f"{value:.3g} s"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.3g}"


def _sparkline(values: Iterable[float]) -> str:
    shown = list(values)
    if len(shown) < 2:
        return ""
    most = max(shown, default=0.0) or 1.0
    return "".join(_BARS[round(value / most * (len(_BARS) - 1))] for value in shown)
