"""CLIP: models, dense features and text features."""
