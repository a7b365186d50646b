"""The online store: memory, commands, evictions, and what gateways wait for."""

from scripts.dashboards.panels import DashboardText, Row, lines, number

REDIS = DashboardText(
    uid="skewless-online-store",
    title="Skewless / Online store",
    says="Valkey or Redis: memory, commands, evictions, and what gateways wait for. Metrics of redis_exporter.",
    guide="docs/online-reads.md",
    rows=(
        Row(
            "Now",
            (
                number("Up", "Whether the exporter reaches each server.", "min(redis_up)", alarms=0.5, warns=1.0),
                number(
                    "Memory",
                    "Used by data and buffers.",
                    "sum(redis_memory_used_bytes)",
                    unit="bytes",
                ),
                number("Keys", "Entities, with what others keep there.", "sum(redis_db_keys)"),
                number(
                    "Evicted",
                    "Keys dropped for want of memory, per second. Anything above 0 loses features: raise maxmemory.",
                    "sum(rate(redis_evicted_keys_total[5m]))",
                    unit="ops",
                    alarms=0.001,
                ),
                number("Clients", "Open connections.", "sum(redis_connected_clients)"),
                number(
                    "Left alone by gateways",
                    "1 while gateways do not ask it because it did not answer.",
                    'max(skewless_circuit_open{part="online_store"})',
                    alarms=1.0,
                ),
            ),
        ),
        Row(
            "Work",
            (
                lines(
                    "Commands",
                    "Of all clients.",
                    ("sum(rate(redis_commands_processed_total[5m]))", "commands"),
                    unit="ops",
                ),
                lines(
                    "Processor time",
                    "Share of a core; a server answers on one.",
                    ("sum by (instance) (rate(redis_cpu_user_seconds_total[5m]))", "{{instance}} user"),
                    ("sum by (instance) (rate(redis_cpu_sys_seconds_total[5m]))", "{{instance}} system"),
                    unit="percentunit",
                    warns=0.6,
                    alarms=0.9,
                ),
                lines(
                    "Reading features, p99",
                    "As gateways wait for it, keys and decoding included.",
                    (
                        "histogram_quantile(0.99, sum by (le) "
                        '(rate(skewless_stage_seconds_bucket{stage="features"}[5m])))',
                        "features",
                    ),
                    unit="s",
                ),
            ),
        ),
        Row(
            "Memory",
            (
                lines(
                    "Used and allowed",
                    "`skewless capacity` says what entities and features take.",
                    ("sum by (instance) (redis_memory_used_bytes)", "{{instance}} used"),
                    ("sum by (instance) (redis_memory_max_bytes) > 0", "{{instance}} allowed"),
                    unit="bytes",
                    width=12,
                ),
                lines(
                    "Keys by database",
                    "Projects of Feast may share one.",
                    ("sum by (db) (redis_db_keys)", "{{db}}"),
                    width=12,
                ),
            ),
        ),
    ),
)
