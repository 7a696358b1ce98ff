"""The training loop, its schedule and its checkpoints."""
