"""One readable file a method; no method imports another."""
