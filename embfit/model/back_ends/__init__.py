"""Back ends: what computes a backbone's hidden states in the place of PyTorch, converted from its weights."""
