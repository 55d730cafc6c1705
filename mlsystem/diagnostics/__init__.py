"""Looking at a system without changing it: summary, gradient report, gradient norms."""
