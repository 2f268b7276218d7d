"""A local page to try models on: what it asks, what it shows, and who may open it."""
