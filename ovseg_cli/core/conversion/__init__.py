"""Official checkpoints of the papers become run folders."""
