"""Runs that are only thought of. `yarrow.simulate` and `yarrow.forecast` are the doors."""
