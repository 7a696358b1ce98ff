"""The demo: what it shows, its pictures, and how it runs."""
