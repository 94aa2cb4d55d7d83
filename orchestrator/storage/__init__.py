"""What lies on disk: stages, sweeps, payloads, failures."""
