"""An OpenAI-compatible server over the cursor engine."""
