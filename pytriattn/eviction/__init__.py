"""What is evicted and when, and what is told of it."""
