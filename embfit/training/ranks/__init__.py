"""Training in several processes: how they are launched and meet, and what they exchange."""
