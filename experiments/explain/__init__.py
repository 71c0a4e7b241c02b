"""One attempt explained, as `watch --explain` shows it.

`one_attempt.explain` makes the attempt of a row again and writes its page; `evidence`
records what each decision rested on, `attempt_page` and `search_figures` show it.
"""
