"""Reads metrics as Prometheus does: by its own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

LAST_SUCCESS = "insights_applier_last_success_timestamp_seconds"


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Each sample by its name and the values of its labels, in the order of their names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
