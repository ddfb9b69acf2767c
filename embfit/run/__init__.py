"""The life of a run: its folder and record, resuming, exit status, child processes and launch environment."""
