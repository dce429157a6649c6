"""What a running server tells of itself: log, metrics, traces."""
