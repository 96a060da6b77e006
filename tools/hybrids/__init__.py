"""Small models with few attention layers, trained to retrieve, and what eviction does to them: see docs/hybrids.md."""
