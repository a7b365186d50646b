"""Who asks, what they may ask, and how often: credentials, scopes, rates and the wire they come over."""
