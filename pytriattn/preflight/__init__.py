"""Whether a model, its statistics, a budget and this build fit together, before anything large is loaded."""
