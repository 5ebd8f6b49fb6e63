"""What image files say about how they were made."""
