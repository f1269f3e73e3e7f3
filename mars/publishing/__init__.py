"""What a finished experiment hands on: packed for git, in DVC's storage, as pages and archives."""
