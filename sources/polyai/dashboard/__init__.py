"""A dashboard over the views: a marimo app with Altair, served on this machine.

Imports point one way: `markup`, `wording`, `selection` and `totals` → `queries` → `charts` and
`pieces` → a module a page → `dashboard` → `serving` → `cli`. The app itself, `app`, imports nothing
of the package: it gets the dashboard from its server, so that the package can have any name.
"""
