"""Pretraining: DeepSpeed under Ray Train."""
