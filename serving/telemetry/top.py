"""A screen of text that shows a running server: `bgan top`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..config.addresses import own_host
from ..config.settings import ServerSettings
from ..errors import MetricsError
from .scrape import Scrape, ScrapeDelta, scrape

_FIRST_SECONDS_AT_MOST = 1.0
_QUANTILES = (0.5, 0.95, 0.99)
_BARS = "▁▂▃▄▅▆▇█"
_FRAMES_BACK = 40
_REVISION_DIGITS = 8
_NOTHING = "-"


def watch(url: str, console: Console, *, interval_seconds: float, once: bool = False) -> None:
    """Show the server behind a metrics URL until Ctrl-C, or one frame. Raises MetricsError if it is not there.

    A server that goes away later is waited for. Where the console is no terminal frames come one below the other.
    """
    before = scrape(url)
    rates: deque[float] = deque(maxlen=_FRAMES_BACK)
    with _screen(console, is_live=console.is_terminal and not once) as show:
        time.sleep(min(interval_seconds, _FIRST_SECONDS_AT_MOST))
        while True:
            try:
                change = ScrapeDelta(before, scrape(url))
            except MetricsError as error:
                if once:
                    raise
                show(Group(_title(url), Text(str(error), style="red")))
            else:
                rates.append(change.rate("bgan_images_total"))
                show(frame(url, change, rates))
                before = change.now
            if once:
                return
            time.sleep(interval_seconds)


def own_metrics(settings: ServerSettings) -> str:
    """Where a server of these settings shows its metrics on its own machine. Raises MetricsError."""
    if not settings.metrics_port:
        raise MetricsError("no metrics port is set here; name the address of one, as in bgan top localhost:9090")
    return f"{own_host(settings.metrics_host)}:{settings.metrics_port}"


@contextmanager
def _screen(console: Console, *, is_live: bool) -> Iterator[Callable[[RenderableType], None]]:
    """What shows a frame; the live one is the whole screen, and leaves what was there before."""
    if not is_live:
        yield console.print
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        yield lambda renderable: live.update(renderable, refresh=True)


def frame(url: str, change: ScrapeDelta, rates: Iterable[float]) -> RenderableType:
    """One look at a server; `rates` are the images a second of the frames up to this one."""
    now = change.now
    parts: list[RenderableType] = [_title(url), _totals(change, rates), "", _models(change)]
    if failures := int(now.total("bgan_model_failures")):
        files = "1 model file" if failures == 1 else f"{failures} model files"
        parts.append(Text(f"{files} cannot be served; bgan models and the log say why", style="red"))
    return Group(*parts, "", _queue(change), "", _rejected(change))


def _title(url: str) -> RenderableType:
    grid = Table.grid(expand=True)
    grid.add_column()
    grid.add_column(justify="right")
    grid.add_row(Text.assemble(("bgan top", "bold"), f"  {url}"), Text(f"{datetime.now():%H:%M:%S}", style="dim"))
    return grid


def _totals(change: ScrapeDelta, rates: Iterable[float]) -> RenderableType:
    now = change.now
    workers, ready = int(now.total("bgan_workers")), int(now.total("bgan_ready_workers"))
    waiting = int(now.total("bgan_queued_calls"))
    images = Text.assemble(
        ("images/s ", "dim"),
        (_count(change.rate("bgan_images_total")), "bold cyan"),
        (f"   {_sparkline(rates)}", "cyan"),
    )
    calls = Text.assemble(
        ("streams ", "dim"),
        (f"{now.total('bgan_streams'):.0f}   ", "bold"),
        ("waiting ", "dim"),
        (f"{waiting}   ", "bold yellow" if waiting else "bold"),
        ("workers ready ", "dim"),
        (f"{ready} of {workers}", _color(is_good=0 < workers == ready)),
    )
    return Group(images, calls)


def _models(change: ScrapeDelta) -> RenderableType:
    now = change.now
    is_ready = now.total("bgan_ready_workers") > 0
    table = _table("model", "version", "revision", "ready", "images/s", "threads", *_heads("infer"))
    for model in now.values("bgan_model_info", "model"):
        served = _served(now, model)
        if not served:
            continue
        labels = {"model": model}
        table.add_row(
            model,
            "\n".join(version if version != "0" else _NOTHING for version, _ in served),
            "\n".join(revision[:_REVISION_DIGITS] for _, revision in served),
            Text("yes" if is_ready else "no", style=_color(is_good=is_ready)),
            _count(change.rate("bgan_images_total", **labels)),
            f"{change.rate('bgan_inference_seconds_sum', **labels):.2f}",
            *_quantiles(change, "bgan_inference_seconds", **labels),
        )
    return table


def _served(now: Scrape, model: str) -> list[tuple[str, str]]:
    """(version, revision) of a model, the highest version first."""
    rows = now.by_name.get("bgan_model_info", ())
    served = [each.labels for each in rows if each.value == 1 and each.labels["model"] == model]
    return sorted(
        ((labels["version"], labels["revision"]) for labels in served), key=lambda pair: (-int(pair[0]), pair[1])
    )


def _queue(change: ScrapeDelta) -> RenderableType:
    left = change.rate("bgan_queue_seconds_count")
    if not left:
        return Text("no call left the queue", style="dim")
    times = zip(_heads("waited"), _quantiles(change, "bgan_queue_seconds"), strict=True)
    parts = [part for head, seconds in times for part in ((f"{head} ", "dim"), f"{seconds}   ")]
    return Text.assemble(("left the queue/s ", "dim"), f"{_count(left)}   ", *parts)


def _rejected(change: ScrapeDelta) -> RenderableType:
    now = change.now
    table = _table("rejected calls", "a second", "in all")
    for reason in now.values("bgan_rejected_total", "reason"):
        if total := now.total("bgan_rejected_total", reason=reason):
            rate = change.rate("bgan_rejected_total", reason=reason)
            table.add_row(reason, _count(rate), f"{total:,.0f}", style="yellow" if rate else "")
    return table if table.row_count else Text("no call was rejected", style="dim")


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column(first, overflow="fold")
    for heading in others:
        is_word = heading in ("version", "revision", "ready")
        table.add_column(heading, justify="left" if is_word else "right", no_wrap=True)
    return table


def _heads(what: str) -> list[str]:
    first, *others = [f"p{100 * quantile:.0f}" for quantile in _QUANTILES]
    return [f"{what} {first}", *others]


def _quantiles(change: ScrapeDelta, histogram: str, **labels: str) -> list[str]:
    return [_seconds(change.quantile(quantile, histogram, **labels)) for quantile in _QUANTILES]


def _seconds(value: float | None) -> str:
    if value is None:
        return _NOTHING
    if value < 1:
        return f"{1000 * value:.3g} ms"
    return f"{value:.3g} s"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.3g}"


def _color(*, is_good: bool) -> str:
    return "green" if is_good else "bold red"


def _sparkline(values: Iterable[float]) -> str:
    shown = list(values)
    if len(shown) < 2:
        return ""
    most = max(shown, default=0.0) or 1.0
    return "".join(_BARS[round(value / most * (len(_BARS) - 1))] for value in shown)
