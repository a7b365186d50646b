"""Types of columns that the registry's tables share, so that one name means one type in all of them."""

from sqlalchemy import JSON, BigInteger, Integer, String

# On PostgreSQL `json` and not `jsonb`: it keeps the text as it was written, so a document is read back bit for bit and
# its digest holds. A null is the database's own, never the JSON text `null`.
Json = JSON(none_as_null=True)
# SQLite numbers rows by itself only where the key is spelled INTEGER, which is 64 bits wide there.
RowNumber = BigInteger().with_variant(Integer(), "sqlite")
DigestText = String(64)
EndpointName = String(63)
RoleName = String(16)
