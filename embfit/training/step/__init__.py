"""One optimizer step: micro-batches, the gradient cache, memory, and how the backbone computes."""
