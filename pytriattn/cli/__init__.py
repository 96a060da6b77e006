"""Command-line programs. Each module has a `main` that takes arguments and returns an exit code."""
