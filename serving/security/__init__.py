"""Who is admitted, and what they may do."""
