"""LightningModules, one file or folder per method, and the plain torch pieces they are made of."""
