"""What a run found, for people: a table in the terminal, and report.html, a page that needs nothing beside it."""
