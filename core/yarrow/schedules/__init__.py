"""Schedules: cron expressions and what they mean on the clock of a zone. `yarrow.timetable` is the door."""
