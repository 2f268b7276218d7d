"""What happens around a run: steered sampling, writing of traces and predictions, figures."""
