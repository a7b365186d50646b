"""What a batch of feature rows must be like before it is served: suites, outcomes, quarantine."""
