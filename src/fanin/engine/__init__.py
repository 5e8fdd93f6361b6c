"""The engine: stacks of multilayer perceptrons with explicit gradients, trained in one visible loop (`train.train`)."""
