"""What every room stands on: settings, database, jobs, events, the vault, guarded egress, telemetry. Knows no room."""
