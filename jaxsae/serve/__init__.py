"""The report's page, alive: a server of one's own machine that restores and explains what is typed into the page."""
