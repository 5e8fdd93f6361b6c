"""Readers under arbitrary and mutated bytes."""
