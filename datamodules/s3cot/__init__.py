"""Data of S³-CoT: filtered traces as curriculum items, the stages of the curriculum, imported traces."""
