"""Evidence on a small real language model, with published data."""
