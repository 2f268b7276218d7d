"""The synthetic world that the miniature lives in: arithmetic with a dial for verbosity, and how-to requests."""
