"""The parts of a decision on a run, each pure. `yarrow.decide` is the door."""
