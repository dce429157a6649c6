"""Every setting of a training run, without torch."""
