"""Reading GGUF files without loading a model."""
