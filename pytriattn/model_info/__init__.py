"""What a GGUF file tells about its model, and the memory that its caches take."""
