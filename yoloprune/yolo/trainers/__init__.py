"""Ultralytics' trainers for pruned networks, and what they can be bound with: distillation, sparsity, a way back."""
