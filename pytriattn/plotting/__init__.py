"""Pictures of statistics and of kept keys."""
