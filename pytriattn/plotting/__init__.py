"""Plots of statistics and of kept keys."""
