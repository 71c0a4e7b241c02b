"""Pages about results: `pages` writes them, templates/ hold their text.

The report of a work folder: `results` and `evaluated` read it, `breakdown` counts rows,
`tables`, `words` and `evaluation_figures` show the numbers, `names` labels them, and
`content` puts together what templates/report.md.j2 needs.
"""
