"""Training in several processes: their layout, how they are launched and meet, and what they exchange."""
