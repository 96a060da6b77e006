"""A loaded model with a context, and the text that its cache holds."""
