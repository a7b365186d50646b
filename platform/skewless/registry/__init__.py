"""The registry database: bundles, endpoints, routes and the audit trail, through SQLAlchemy and Alembic."""
