"""The statistics of a model's own queries: measuring, keeping and reading them."""
