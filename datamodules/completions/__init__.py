"""What every reader of completions shares: thought and answer, the words of a refusal, whether it is English."""
