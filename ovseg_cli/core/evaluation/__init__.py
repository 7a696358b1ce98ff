"""From scores to label maps, from label maps to counts, from counts to metrics."""
