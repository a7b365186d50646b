"""The table of leases: who may do something alone, and until when."""

from sqlalchemy import BigInteger, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from skewless.registry.tables import Base


class LeaseRow(Base):
    """A lease, held until `expires_time` by the database's clock; free once that is over. `token` only grows."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(300), primary_key=True)
    owner: Mapped[str] = mapped_column(Text)
    token: Mapped[int] = mapped_column(BigInteger)
    taken_time: Mapped[int] = mapped_column(BigInteger)
    expires_time: Mapped[int] = mapped_column(BigInteger)
