"""What can be typed: each module reads options, calls one core function and shows the result."""
