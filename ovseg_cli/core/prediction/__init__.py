"""A model, a picture and some words: label maps, overlays and masks for people who are not scoring anything."""
