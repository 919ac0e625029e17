"""Whatever a target, an upstream or an endpoint is called: its line is JSON, in ASCII, and says it as it was."""

import json
import tempfile
from pathlib import Path
from urllib.parse import unquote_to_bytes

from hypothesis import given, settings
from hypothesis import strategies as st
from support.access_log import Logged
from unit.proxy.harness import Proxy, ok, request

from sidecar.model import Endpoint, Snapshot
from sidecar.model.stats import METHODS

# What a head's scan lets through (http1.target): neither controls nor spaces, but bytes above 127.
TARGET = st.binary(max_size=100).map(lambda data: bytes(byte for byte in data if byte > 32 and byte != 127))
SPECIAL = st.lists(
    st.sampled_from([b'"', b"\\", b"%22", b"\xff", b"\xc3\xa9", b"a", b"?", b"\\u0022", b"/"])
).map(b"".join)
METHOD = st.sampled_from([name for name in METHODS if name not in ("CONNECT", "OTHER")])
VISIBLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=128)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(METHOD, TARGET | SPECIAL, VISIBLE), min_size=1, max_size=5),
    st.text(max_size=63),
    st.ip_addresses().map(str) | st.just("fe80::1%eth0"),
    st.booleans(),
)
async def test_a_line_reads_back_as_what_it_is_of(
    asked: list[tuple[str, bytes, str]], upstream: str, host: str, query: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        proxy = Proxy(endpoints=0)
        proxy.cluster.name = upstream
        endpoint = Endpoint(host, 80)
        proxy.cluster.apply(Snapshot(upstream, (endpoint,), "static"))
        async with Logged(proxy, Path(folder, "log"), query=query) as logged:
            for method, target, name in asked:
                line = f"{method} /{target.decode('latin-1')}"
                proxy.exchange(
                    request(line, f"x-request-id: {name}"), ok(b"", *(["x: y"] if method != "HEAD" else []))
                )
            await logged.log.close()
            text = logged.path.read_bytes()
            assert text.isascii()
            lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == len(asked)
    for line, (method, target, name) in zip(lines, asked, strict=True):
        path = b"/" + (target if query else target.partition(b"?")[0])
        assert (line["upstream"], line["endpoint"], line["method"]) == (upstream, endpoint.address, method)
        assert line["request_id"] == name
        # Bytes above 127 read as a URL has them.
        above = "".join(f"%{byte:02X}" if byte > 127 else chr(byte) for byte in path)
        assert line["path"] == above
        assert unquote_to_bytes(line["path"]) == unquote_to_bytes(path)
