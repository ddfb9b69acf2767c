"""Back ends: libraries that compute a backbone's hidden states instead of PyTorch, from a converted graph."""
