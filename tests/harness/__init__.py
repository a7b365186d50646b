"""Real servers and ways to wait for them, shared by tests."""
