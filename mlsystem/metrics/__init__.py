"""What is logged: running means, metrics of members, and their names."""
