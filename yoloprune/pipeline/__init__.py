"""A pruning run, for any detector: options, plan, pruning and recovery, trainings, output folder, Python API."""
