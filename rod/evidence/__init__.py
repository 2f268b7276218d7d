"""What each method claims, measured on the miniature with its controls: the commands, the numbers, the report."""
