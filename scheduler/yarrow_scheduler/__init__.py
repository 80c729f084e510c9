"""The scheduler: decides which runs exist, which tasks may run, and what becomes of the lost."""
