"""What the command-line programs print about models and machines, as tables and as JSON."""
