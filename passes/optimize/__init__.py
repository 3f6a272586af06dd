"""Work not done: what the outputs do not need is not computed."""
