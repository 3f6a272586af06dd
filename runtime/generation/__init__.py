"""Text generation: a cache of keys and values, the loops over it, and what is read from a checkpoint's settings."""
