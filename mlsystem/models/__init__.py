"""The classes that users subclass: `MLModel`, `MLSystem` and `EMA`, with their learners.

`MLModel` and `MLSystem` are each made of a class for attributes and a class for saving.
"""
