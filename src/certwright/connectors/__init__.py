"""One folder per outside party, grouped by the port it implements."""
