"""The routing of losses to models, and the schedule of updates. No tensors are computed here."""
