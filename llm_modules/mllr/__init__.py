"""ML-LR: find the modules that carry safety, and tune the others (docs/mllr.md)."""
