"""Settings of Ray that it reads from the environment, some of them when it is imported."""

RAY_ENVIRONMENT = {
    "RAY_TRAIN_V2_ENABLED": "1",
    # The default poll of 2 s costs each trial seconds at its start and end.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # A process of its own for each trial, which tells a training loop of a coming preemption. Ours checkpoints every
    # epoch anyway, and goes on from there on another node.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # On a busy machine Ray's own processes take longer than its 30 s to come up.
    "RAY_raylet_start_wait_time_s": "180",
    "TOKENIZERS_PARALLELISM": "false",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Our own handler prints the resume command; Tune's would swallow the first signal.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "PYTHONWARNINGS": "ignore",
    # A trial is several small processes; Ray would warn that it starts more than it has CPUs.
    "RAY_worker_maximum_startup_concurrency": "8",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "PYTHON worker processes have been started",
}
