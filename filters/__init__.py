"""Text in, signal or decision out; deduplication below ``filters.dedup``."""
