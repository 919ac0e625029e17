"""A scrape in which everything occurs that rules and dashboards may ask for: names, labels and values of labels."""

from prometheus_client.parser import text_string_to_metric_families

from sidecar.errors import Reason
from support.metrics import everything

__all__ = ["Exposed", "exposed"]

# Metric to label to the values that it may have.
Exposed = dict[str, dict[str, set[str]]]


def exposed(detail: str = "normal") -> Exposed:
    """Every metric of the sidecar, as its exposition has it; of requests, whatever they may end by."""
    found: Exposed = {}
    for family in text_string_to_metric_families(everything(detail).render().decode()):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    found["sidecar_requests_total"]["reason"] |= {reason.label for reason in Reason}
    for name in found:
        if "code_class" in found[name]:
            found[name]["code_class"] |= {"2xx", "4xx", "5xx"}
    return found
