"""Why a task instance does not run: each dependency and each limit, judged by what the scheduler itself judges by."""
