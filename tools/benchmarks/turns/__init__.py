"""Benchmarks in which contenders in processes of their own take turns."""
