"""The built-in operators: one class a file. They are found through the entry-point group `yarrow.operators`."""
