"""Scoring and selecting keys by hand; records and counters of evictions."""
