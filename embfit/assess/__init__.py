"""Is fine-tuning worth it, and from which model? Measurements before any money is spent, and the advice they give."""
