"""Callbacks of S³-CoT: the direction's file, steering, calibration, figures."""
