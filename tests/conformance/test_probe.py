"""The raw-byte cases for HTTP/1.1 proxies: 461 of them, each judged by what the client got and what reached the origin.

Cases and runner (`probe.py`, `cases.json`) are kept outside of this repository: the folder is $SIDECAR_CONFORMANCE,
else a folder `conformance` of whatever stands beside this checkout. Nothing but PASS is accepted, except with a
reason in `DECIDED`; and a reason whose case passes is no reason any more.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ports import free_port
from support.proxy import ROOT, Sidecar, configuration
from support.requirements import lacking

GROUPS = (
    "framing",
    "hop",
    "upgrade",
    "expect",
    "smuggling",
    "smug-cl",
    "smug-chunk",
    "syntax",
    "response",
    "connection",
    "limits",
)

# What is allowed and was decided otherwise. No `must` and no `should` is among them.
DECIDED = {
    "FR-VIA": "no Via: the application is the origin, as behind no proxy at all (RFC 9110 7.6.3 says MUST of "
    "proxies and gateways alike; HAProxy, nginx and Envoy add none by default)",
    "HB-CONN-XFF": "Connection names Cookie, so it ends here (RFC 9110 7.6.1)",
    "HB-PROXY-AUTHZ": "Proxy-Authorization passes: this proxy asks for none, so it may be for one further on "
    "(RFC 9110 11.7.2)",
    "SY-TGT-C0AF": "raw bytes above 127 pass in a target: applications send UTF-8 and endpoints read it; "
    "targets are never re-quoted",
    "CN-HALFCLOSE": "a client that closes its side during a request has gone (499), as nginx and Envoy see it",
}


def probe() -> Path:
    """The runner."""
    named = os.environ.get("SIDECAR_CONFORMANCE")
    folders = [Path(named)] if named else sorted(ROOT.parent.glob("*/conformance"))
    found = [folder / "probe.py" for folder in folders if (folder / "probe.py").is_file()]
    if not found:
        lacking("the HTTP/1.1 cases are not here; set SIDECAR_CONFORMANCE to the folder of probe.py")
    return found[0]


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """A sidecar as the cases want it, and the port where they will serve as its endpoint: both ports."""
    probe()
    listen, origin = free_port(), free_port()
    policy = "host: preserve, timeout: 3, circuit_breaker: {consecutive_failures: 1000000}"
    text = configuration(listen, [origin], policy=policy, sidecar="head_timeout: 3")
    with Sidecar(tmp_path_factory.mktemp("conformance"), text):
        yield listen, origin


def test_every_case_is_in_a_group_and_every_decision_about_one() -> None:
    cases = json.loads(probe().with_name("cases.json").read_text())["cases"]
    assert {case["group"] for case in cases} == set(GROUPS)
    assert {case["id"] for case in cases} >= DECIDED.keys()
    assert len(cases) > 400


@pytest.mark.parametrize("group", GROUPS)
def test_cases(proxied: tuple[int, int], group: str, tmp_path: Path) -> None:
    listen, origin = proxied
    report = tmp_path / "report.json"
    target = ["--target", f"127.0.0.1:{listen}", "--origin-port", str(origin)]
    command = [sys.executable, str(probe()), *target, "--group", group, "--json", str(report)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=55, check=False
    )
    assert report.exists(), f"{done.stdout}\n{done.stderr}"
    results = json.loads(report.read_text())
    results = results["results"] if isinstance(results, dict) else results

    assert done.returncode == 0, done.stdout
    odd = [result for result in results if result["verdict"] != "PASS" and result["id"] not in DECIDED]
    told = "\n".join(
        f"{result['verdict']} {result['severity']} {result['id']} ({result['ref']}): {result['reason']}"
        for result in odd
    )
    assert not odd, told
    stale = [result["id"] for result in results if result["verdict"] == "PASS" and result["id"] in DECIDED]
    assert not stale
    assert not [result for result in results if result["id"] in DECIDED and result["severity"] != "may"]
