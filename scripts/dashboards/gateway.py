"""How callers fare: traffic, errors, latency, overload, and what is degraded."""

from scripts.dashboards.panels import DashboardText, Row, lines, number

_AT = 'endpoint=~"$endpoint"'

GATEWAY = DashboardText(
    uid="skewless-gateway",
    title="Skewless / Gateway",
    says="How callers fare: traffic, errors, latency, overload, and what is degraded.",
    guide="docs/observability.md",
    chosen={"endpoint": "skewless_rows_total"},
    rows=(
        Row(
            "Now",
            (
                number(
                    "Requests per second",
                    "Of the chosen endpoints, answered or refused.",
                    f"sum(rate(skewless_requests_total{{{_AT}}}[5m]))",
                    unit="reqps",
                ),
                number(
                    "Failed",
                    "Requests that ended in a 5xx. Above 1 % an alert is told: look at rungs and circuits below.",
                    f'(sum(rate(skewless_requests_total{{{_AT},code=~"5.."}}[5m])) or vector(0))'
                    f" / sum(rate(skewless_requests_total{{{_AT}}}[5m]))",
                    unit="percentunit",
                    warns=0.001,
                    alarms=0.01,
                ),
                number(
                    "Latency, p99",
                    "Of answered requests, all endpoints, as the gateway sees them.",
                    'histogram_quantile(0.99, sum by (le) (rate(skewless_stage_seconds_bucket{stage="total"}[5m])))',
                    unit="s",
                    warns=0.05,
                    alarms=0.1,
                ),
                number(
                    "Answered in full",
                    "Share of answers on rung `normal`; docs/degrading.md says what the others leave out.",
                    f'sum(rate(skewless_rungs_total{{{_AT},rung="normal"}}[5m]))'
                    f" / sum(rate(skewless_rungs_total{{{_AT}}}[5m]))",
                    unit="percentunit",
                    warns=0.999,
                    alarms=0.99,
                ),
                number(
                    "Workers up",
                    "Workers that give signs of life.",
                    "sum(skewless_worker_up) or count(skewless_build_info)",
                ),
                number(
                    "Registry",
                    "1 while the last read of the routes succeeded; at 0 the last good routes are served.",
                    "min(skewless_registry_up)",
                    warns=1.0,
                    alarms=0.5,
                ),
            ),
        ),
        Row(
            "Traffic",
            (
                lines(
                    "Requests by status",
                    "4xx are callers' mistakes and refusals, 5xx ours.",
                    (f"sum by (code) (rate(skewless_requests_total{{{_AT}}}[5m]))", "{{code}}"),
                    unit="reqps",
                ),
                lines(
                    "Predictions by endpoint",
                    "Answered instances.",
                    (f"sum by (endpoint) (rate(skewless_rows_total{{{_AT}}}[5m]))", "{{endpoint}}"),
                    unit="rowsps",
                ),
                lines(
                    "Bundle that answers",
                    "1 for the live bundle of each endpoint; a step is a promotion or a roll-back.",
                    (f"max by (endpoint, bundle) (skewless_bundle_live{{{_AT}}})", "{{endpoint}} {{bundle}}"),
                ),
            ),
        ),
        Row(
            "Latency",
            (
                lines(
                    "Whole requests",
                    "Quantiles of answered requests.",
                    *(
                        (
                            f"histogram_quantile({quantile}, "
                            'sum by (le) (rate(skewless_stage_seconds_bucket{stage="total"}[5m])))',
                            f"p{quantile * 100:g}",
                        )
                        for quantile in (0.5, 0.9, 0.99)
                    ),
                    unit="s",
                ),
                lines(
                    "Stages, p99",
                    "Where the time goes: features is the online store, model the model server.",
                    (
                        "histogram_quantile(0.99, sum by (stage, le) "
                        '(rate(skewless_stage_seconds_bucket{stage!="total"}[5m])))',
                        "{{stage}}",
                    ),
                    unit="s",
                ),
                lines(
                    "Held up",
                    "By how much the event loop's timer came late, and how long garbage collection stopped it.",
                    ("max(skewless_event_loop_lag_seconds)", "event loop"),
                    ("histogram_quantile(0.99, sum by (le) (rate(skewless_gc_pause_seconds_bucket[5m])))", "gc, p99"),
                    unit="s",
                ),
            ),
        ),
        Row(
            "Overload",
            (
                lines(
                    "Places",
                    "Predictions computed, waiting, and how many may be computed at once.",
                    (f"sum(skewless_admission_in_flight{{{_AT}}})", "computed"),
                    (f"sum(skewless_admission_queued{{{_AT}}})", "waiting"),
                    (f"sum(skewless_admission_limit{{{_AT}}})", "limit"),
                ),
                lines(
                    "Refused before work",
                    "docs/overload.md says what each reason means. Steady refusals: add workers or gateways.",
                    (f"sum by (reason) (rate(skewless_admission_refused_total{{{_AT}}}[5m]))", "{{reason}}"),
                    unit="reqps",
                ),
                lines(
                    "Refused callers",
                    "For who asks, what, or how often.",
                    ("sum by (code) (rate(skewless_refused_callers_total[5m]))", "{{code}}"),
                    unit="reqps",
                ),
            ),
        ),
        Row(
            "Degraded",
            (
                lines(
                    "Answers by rung",
                    "Everything but `normal` is an answer with something left out, as the bundle's ladder allows.",
                    (f"sum by (rung) (rate(skewless_rungs_total{{{_AT}}}[5m]))", "{{rung}}"),
                    unit="reqps",
                ),
                lines(
                    "Circuits",
                    "1 while a part is left alone because it did not answer; it is tried again by itself.",
                    ("max by (part) (skewless_circuit_open)", "{{part}}"),
                ),
                lines(
                    "Contracts that changed",
                    "1 where the registered definitions are no longer those that the live bundle was built from.",
                    (f"max by (endpoint) (skewless_contract_changed{{{_AT}}})", "{{endpoint}}"),
                ),
            ),
        ),
        Row(
            "Prediction log",
            (
                lines(
                    "Records",
                    "Written to segments; every answered prediction is one.",
                    ("sum(rate(skewless_prediction_log_rows_total[5m]))", "written"),
                    ("sum(rate(skewless_prediction_log_dropped_rows_total[5m]))", "dropped"),
                    unit="rowsps",
                ),
                lines(
                    "Waiting to be shipped",
                    "Bytes in the spool. Growing: look at the shipper's log and its sinks.",
                    ("max(skewless_prediction_log_spool_bytes)", "spool"),
                    unit="bytes",
                ),
                lines(
                    "Failing",
                    "1 while the last flush could not write everything: a full disk, as a rule.",
                    ("max(skewless_prediction_log_failing)", "failing"),
                    alarms=1.0,
                ),
            ),
        ),
    ),
)
