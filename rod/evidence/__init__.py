"""Each method's claims, measured on the miniature with controls: commands, numbers, report."""
