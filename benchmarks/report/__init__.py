"""A record of ``dyninfer bench`` as a page that explains itself, and as Markdown."""
