"""One attempt explained, as `watch --explain` shows it.

`one_attempt.explain` repeats the attempt of a row and writes its page; `evidence`
records what each decision rested on, `attempt_page` and `search_figures` show it.
"""
