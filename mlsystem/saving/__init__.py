"""Files: weights, whole models, and checkpoints that training resumes from."""
