"""The gateway: predictions over REST."""
