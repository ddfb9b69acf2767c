"""One training from start to end in one process: validation, checkpoints, interruption and the time limit."""
