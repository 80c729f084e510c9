-- One row for each airport and day.
SELECT
    origin,
    make_date(year, month, day) AS date,
    max(temp) AS warmest,
    min(temp) AS coldest,
    max(wind_speed) AS strongest_wind,
    min(visib) AS lowest_visibility,
    sum(precip) AS rain_inches
FROM input
GROUP BY ALL
ORDER BY origin, date
