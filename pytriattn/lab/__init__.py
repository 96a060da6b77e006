"""The quality lab: what a rule for keeping keys loses, measured against the full cache."""
