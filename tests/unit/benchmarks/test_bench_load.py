"""What the load generators print, and which scenarios a run has."""

import pytest
from load import LoadError, read_redis_benchmark, read_wrk
from scenarios import SCENARIOS, chosen

WRK = """Running 2s test @ http://127.0.0.1:8080/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.20ms    2.11ms  20.60ms   93.00%
    Req/Sec    20.25k     2.61k   25.70k    65.00%
  Latency Distribution
     50%  912.00us
     75%    1.10ms
     90%    1.92ms
     99%    8.88ms
  40362 requests in 2.00s, 10.62MB read
Requests/sec:  20166.11
Transfer/sec:      5.31MB
"""
REDIS = (
    '"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"\n'
    '"GET","38895.00","0.450","0.088","0.407","0.900","4.543","9.100"\n'
)


def test_wrk_tells_requests_and_percentiles_of_latency() -> None:
    turn = read_wrk(WRK)
    assert (turn.requests, turn.seconds, turn.rate) == (40362, 2.0, 20181.0)
    assert turn.p50 == pytest.approx(0.000912)
    assert turn.p99 == pytest.approx(0.00888)


def test_few_large_answers_are_counted_by_their_bytes() -> None:
    assert read_wrk(WRK, answer=1024 * 1024).requests == pytest.approx(10.62)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("  Non-2xx or 3xx responses: 7", "Non-2xx or 3xx responses: 7"),
        ("  Socket errors: connect 0, read 3, write 0, timeout 0", "read 3"),
    ],
)
def test_a_failed_request_spoils_the_turn(line: str, told: str) -> None:
    with pytest.raises(LoadError, match=told):
        read_wrk(f"{WRK}{line}\n")


@pytest.mark.parametrize("output", ["", WRK.replace("40362", "0")])
def test_no_request_is_no_measurement(output: str) -> None:
    with pytest.raises(LoadError, match="counted no request"):
        read_wrk(output)


def test_redis_benchmark_tells_rate_and_percentiles() -> None:
    turn = read_redis_benchmark(REDIS, 77790)
    assert (turn.requests, turn.seconds) == (77790, 2.0)
    assert turn.p50 == pytest.approx(0.000407)
    assert turn.p99 == pytest.approx(0.004543)


def test_an_old_redis_benchmark_tells_the_rate_alone() -> None:
    turn = read_redis_benchmark('"GET","50000.00"\n', 100_000)
    assert (turn.seconds, turn.p50, turn.p99) == (2.0, None, None)


@pytest.mark.parametrize("output", ["", "Could not connect\n", '"GET","nan rps"\n', '"GET","0.00"\n'])
def test_redis_benchmark_without_a_rate_is_no_measurement(output: str) -> None:
    with pytest.raises(LoadError):
        read_redis_benchmark(output, 1000)


def test_a_run_has_the_ten_usual_scenarios_unless_told_otherwise() -> None:
    usual = "single small many connect download upload redis idle endpoints upstreams"
    assert " ".join(scenario.name for scenario in chosen(None, every=False)) == usual
    assert chosen(None, every=True) == list(SCENARIOS)
    assert [scenario.name for scenario in chosen(["redis-set", "small"], every=True)] == [
        "small",
        "redis-set",
    ]
