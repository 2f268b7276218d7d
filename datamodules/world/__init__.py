"""The miniature's synthetic world: arithmetic explained at any verbosity, and how-to requests."""
