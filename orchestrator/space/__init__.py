"""Search spaces: what a YAML file and `--set` may say."""
