"""What runs features: their functions, their checks and their windows."""
