"""What a server's metrics port says."""

import re
import urllib.request

from prometheus_client.parser import text_string_to_metric_families


def scrape(process) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, in the order of the labels' names."""
    url = re.search(r"metrics on (http://\S+)", process.output())[1]
    with urllib.request.urlopen(url, timeout=60) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in families
            for sample in family.samples
        }
