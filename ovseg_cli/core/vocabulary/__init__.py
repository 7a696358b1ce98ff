"""What is wrong with a list of class names, and what of it has training seen?"""
