"""Statistics files of other programs, to ours and back."""
