"""The paper's experiments, from training to the report."""
