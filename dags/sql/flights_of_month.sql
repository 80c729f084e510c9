-- The flights that were scheduled in one month, as the airlines reported them, and how busy their airport is then.
SELECT
    time_hour, year, month, day, sched_dep_time, hour, minute,
    carrier, flight, tailnum, origin, dest, distance,
    dep_delay, arr_delay,
    count(*) OVER (PARTITION BY origin, time_hour) AS departures_in_hour
FROM source
WHERE year = date_part('year', $month::DATE)
  AND month = date_part('month', $month::DATE)
ORDER BY time_hour, carrier, flight, origin
