"""Nothing leaks: which prompts and pictures are nearly the same, and belong into one split."""
