"""What people decide about generated queries and about results: the pages they decide on, and the files they export."""
