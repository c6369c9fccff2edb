"""Ultralytics' trainers for pruned networks, and what can be bound to them: distillation, sparsity, rollback."""
