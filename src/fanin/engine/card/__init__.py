"""The engine on a CUDA card: buckets of slots, steps that are captured and replayed, and never wait for the host."""
