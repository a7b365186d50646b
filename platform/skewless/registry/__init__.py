"""The registry database: bundles, endpoints, routes, experiments, evaluations, keys, snapshots and the audit trail."""
