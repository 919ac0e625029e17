cdef class UpstreamPolicy:
    cdef readonly str strategy, host_header, hash_on, zone
    cdef readonly double timeout, connect_timeout, idle_timeout, continue_timeout, tunnel_idle_timeout
    cdef readonly double slow_start, max_load, per_try_timeout, retry_ratio
    cdef readonly bint retry_on_connect, retry_on_reset, retry_on_timeout, observe_only, panic_all
    cdef readonly object retry_statuses
    cdef readonly double breaker_open_for, breaker_max_open_for, breaker_jitter, breaker_failure_rate, breaker_window, max_ejected
    cdef readonly int retries, retry_min, breaker_threshold, breaker_min_requests, max_connections, max_pending
    cdef readonly bint checked
    cdef readonly int check_rise, check_fall, min_available
    cdef readonly long max_request_head, max_response_head
