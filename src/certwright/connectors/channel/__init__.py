"""Ways to reach people: one folder each, all of them implementations of the notify room's `Channel`."""
