"""Lightning callbacks: steered sampling, traces and predictions as files, measures, figures."""
