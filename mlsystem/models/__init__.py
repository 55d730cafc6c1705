"""What users subclass: `MLModel`, `MLSystem` and `EMA`."""
