"""The report of a work folder: what is read, reckoned, worded and drawn.

`experiments.report` puts its sections together. A section is a value made of `blocks`,
which `render` writes as HTML and as Markdown.
"""
