"""What every reader of completions shares: thought and answer, and the words of a refusal."""
