"""What one prediction request means, without any transport: validation, the data plane, receipts, log records."""
