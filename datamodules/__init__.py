"""LightningDataModules: records, sources, prompts, masking, curriculum, benchmarks."""
