"""Where results came from, whether that is still true, and what a run would cost."""
