"""The research: works in a notebook, knows no terminal."""
