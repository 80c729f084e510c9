"""What differs between two versions of a DAG, by meaning and not by text. Pure: no store, no clock, no files."""
