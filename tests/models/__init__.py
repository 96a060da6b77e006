"""Tiny models with random weights that llama.cpp loads and decodes, by what is special about them."""
