"""Files that JAX writes."""

from mlsystem.engine import saved_model

WRITERS = {"tf_saved_model": saved_model.write}
RUNTIMES = {"tf_saved_model": saved_model.run}
