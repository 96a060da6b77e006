"""What the command-line programs tell: models, machines, values as JSON."""
