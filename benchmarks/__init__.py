"""Benchmarks: what Yarrow costs, beside a peer or a ceiling measured in the same run."""
