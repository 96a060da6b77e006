"""Fuzzing of what reads untrusted bytes, and of the order of public calls; see `fuzz.__main__`."""
