"""One file per task; each reads as the story of that task, with no machinery in it."""
