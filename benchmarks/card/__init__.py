"""What gpu.py measures on a CUDA card, part by part."""
