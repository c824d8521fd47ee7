"""The tabs of the page.

A tab has `TITLE`, `VERBS`, one of which a preset needs, and `add(parts)`, which
adds the content of the tab to the page.
"""
