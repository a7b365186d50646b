"""The registry database: bundles, endpoints, routes, registry snapshots and the audit trail."""
