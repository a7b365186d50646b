"""Let an API key say how often it may ask.

Down again, what keys said is lost, and the gateway's default holds for all of them.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("rate_per_s", sa.Double(), nullable=True))
    op.add_column("api_keys", sa.Column("rate_burst", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("api_keys", "rate_burst")
    op.drop_column("api_keys", "rate_per_s")
