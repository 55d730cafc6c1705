"""Looking at a system without changing it: summary, description, gradient report and norms."""
