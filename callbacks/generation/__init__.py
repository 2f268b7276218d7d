"""Callbacks for any run that generates: files of completions that resume, progress, records of settings."""
