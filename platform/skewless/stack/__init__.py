"""The embedded stack: Valkey, Triton and the gateway on one machine, supervised, on loopback only."""
