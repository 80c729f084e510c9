"""Plans: what clearing, marking or a backfill would do, worked out from values alone before it is done."""
