"""The model servers: what they answer, how long rows wait and compute, and how gateways see them."""

from scripts.dashboards.panels import DashboardText, Row, lines, number

_AT = 'model=~"$model"'


def _per_request(duration: str) -> str:
    """Seconds of one inference request, of a counter in microseconds."""
    return (
        f"sum by (model) (rate({duration}{{{_AT}}}[5m])) / 1e6"
        f" / sum by (model) (rate(nv_inference_request_success{{{_AT}}}[5m]))"
    )


TRITON = DashboardText(
    uid="skewless-triton",
    title="Skewless / Triton",
    says="The model servers: what they answer, how long rows wait and compute, and how gateways see them.",
    guide="docs/models.md",
    chosen={"model": "nv_inference_request_success"},
    rows=(
        Row(
            "Now",
            (
                number(
                    "Rows per second",
                    "Inferences of the chosen models.",
                    f"sum(rate(nv_inference_count{{{_AT}}}[5m]))",
                    unit="rowsps",
                    width=6,
                ),
                number(
                    "Rows of one execution",
                    "How many rows share one run of a model: dynamic batching at work.",
                    f"sum(rate(nv_inference_count{{{_AT}}}[5m])) / sum(rate(nv_inference_exec_count{{{_AT}}}[5m]))",
                    width=6,
                ),
                number(
                    "Failed",
                    "Requests that Triton refused or could not compute.",
                    f"sum(rate(nv_inference_request_failure{{{_AT}}}[5m]))",
                    unit="reqps",
                    alarms=0.1,
                    width=6,
                ),
                number(
                    "Servers in service",
                    "Model servers that gateways ask in their turn.",
                    "sum(max by (replica) (skewless_replica_up))",
                    width=6,
                ),
            ),
        ),
        Row(
            "Requests",
            (
                lines(
                    "Time of a request",
                    "In Triton, of which part is waiting in its queue.",
                    (_per_request("nv_inference_request_duration_us"), "{{model}}"),
                    (_per_request("nv_inference_queue_duration_us"), "{{model}} waiting"),
                    unit="s",
                ),
                lines(
                    "Computing",
                    "Time of a request in the model itself.",
                    (_per_request("nv_inference_compute_infer_duration_us"), "{{model}}"),
                    unit="s",
                ),
                lines(
                    "Requests",
                    "Calls that gateways made, each with the rows of what waited together.",
                    (f"sum by (model) (rate(nv_inference_request_success{{{_AT}}}[5m]))", "{{model}}"),
                    unit="reqps",
                ),
            ),
        ),
        Row(
            "As gateways see them",
            (
                lines(
                    "In service",
                    "0 while a server is left alone: it does not answer, or does much worse than the others.",
                    ("max by (replica) (skewless_replica_up)", "{{replica}}"),
                ),
                lines(
                    "Rows in flight",
                    "Computed now, by server.",
                    ("sum by (replica) (skewless_replica_rows_in_flight)", "{{replica}}"),
                ),
                lines(
                    "Tried again, doubled, ejected",
                    "Calls asked of another server, doubled because they took long, and servers left alone.",
                    ("sum(rate(skewless_model_retries_total[5m]))", "tried again"),
                    ("sum(rate(skewless_model_hedges_total[5m]))", "doubled"),
                    ("sum(rate(skewless_replica_ejections_total[5m]))", "ejected"),
                    unit="ops",
                ),
            ),
        ),
        Row(
            "GPU",
            (
                lines(
                    "Utilisation",
                    "Of each GPU; no series without one.",
                    ("max by (gpu_uuid) (nv_gpu_utilization)", "{{gpu_uuid}}"),
                    unit="percentunit",
                    width=12,
                ),
                lines(
                    "Memory",
                    "Used, of each GPU.",
                    ("max by (gpu_uuid) (nv_gpu_memory_used_bytes)", "{{gpu_uuid}}"),
                    unit="bytes",
                    width=12,
                ),
            ),
        ),
    ),
)
