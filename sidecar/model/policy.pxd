cdef class UpstreamPolicy:
    cdef readonly str strategy, host_header, hash_on, zone
    cdef readonly bytes deadline_header
    cdef readonly double timeout, connect_timeout, idle_timeout, continue_timeout, tunnel_idle_timeout
    cdef readonly double slow_start, max_load, per_try_timeout, retry_ratio, backoff_base, backoff_max, hedge_after
    cdef readonly bint retry_on_connect, retry_on_reset, retry_on_timeout, observe_only, panic_all
    cdef readonly bint close_on_unhealthy
    cdef readonly object retry_statuses, failure_statuses
    cdef readonly double breaker_open_for, breaker_max_open_for, breaker_jitter, breaker_failure_rate, breaker_window, max_ejected
    cdef readonly double pending_timeout
    cdef readonly int max_connections_per_endpoint, max_in_flight
    cdef readonly int retries, retry_min, breaker_threshold, breaker_min_requests, max_connections, max_pending
    cdef readonly bint checked
    cdef readonly int check_rise, check_fall, min_available
    cdef readonly long max_request_head, max_response_head
