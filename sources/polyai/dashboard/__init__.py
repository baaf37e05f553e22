"""Dashboard over the views: a marimo app with Altair charts, served locally.

Imports go one way: `markup`, `formats`, `selection` and `totals` → `queries` → `charts` and
`components` → one module per page → `dashboard` → `server` → `cli`. The app itself,
`app`, imports nothing from the package: its server passes the dashboard in, so that the package can
have any name.
"""
