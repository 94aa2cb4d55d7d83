"""One stage at a time: Ray Train workers with DeepSpeed, and single-process tasks."""
