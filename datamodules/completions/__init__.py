"""What every reader of completions shares: thought and answer."""
