"""Writing documents in a model's tokens: ordinary text, words, facts, and putting them together."""
