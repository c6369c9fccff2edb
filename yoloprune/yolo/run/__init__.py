"""The run: load, measure, (prune, fine-tune) x steps, validate, export, write results."""
