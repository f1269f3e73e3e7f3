"""Where results came from, whether that is still true, and whether they come out again."""
