"""Keep with each endpoint when an outcome is late, and how far back one told by entity looks for its prediction.

Down again, what was declared is lost: no outcome is late any more, and the default window holds for all of them.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("endpoints", sa.Column("label_horizon_us", sa.BigInteger(), nullable=True))
    op.add_column("endpoints", sa.Column("outcome_window_us", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("endpoints", "outcome_window_us")
    op.drop_column("endpoints", "label_horizon_us")
