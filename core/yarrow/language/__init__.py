"""The DAG language: from the text of a YAML file to a proved, frozen `DagSpec`, or to every fault of it at once."""
