"""What every service of ours that speaks HTTP shares: its server, who asks, and how errors are told."""
