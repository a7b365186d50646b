"""The ingestion service: takes feature rows from producers and brings each to the online and the offline store."""
