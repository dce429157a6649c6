"""Files that a stream is written to: unfinished ones, which can be resumed, and the formats they end in."""
