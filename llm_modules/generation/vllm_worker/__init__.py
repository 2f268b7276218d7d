"""The process that runs vLLM, in an environment of its own: its files import torch and vLLM only."""
