"""Values every floor shares: ids, clock, actor, names, problems. Does no I/O and imports nothing of ours."""
