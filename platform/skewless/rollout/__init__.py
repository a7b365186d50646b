"""Which bundle answers for which endpoint: the routing table and how its history is read. Pure."""
