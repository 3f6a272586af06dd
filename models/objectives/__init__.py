"""What models are trained to do: losses, and the corruption of texts that they learn to undo."""
