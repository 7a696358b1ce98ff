"""How label files of each kind become raw values: one file a kind, `read` chooses."""
