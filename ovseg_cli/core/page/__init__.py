"""`ovseg report --format html`: one page that opens from disk, in four steps: gather, draw, render, write."""
