"""S³-CoT (arXiv 2602.01982): the variable-length direction, steered self-sampling, and its LightningModule."""
