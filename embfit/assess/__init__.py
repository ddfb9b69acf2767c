"""Is it worth fine-tuning, and from what? Measurements before any money is spent, and what they advise."""
