"""What the process shows over HTTP of its own: never on the data path, never at the application's expense.

Reading order: `bind` (where), `views`, `explain` and `effective` (the live objects, reasons and settings as JSON),
`written` (large ones bit by bit), `control` (what is done by hand), `access` (who may), `api` (the calls), `server`
(how they are served), `live` (what changes of the views) and `events` (who is told), `page` (the dashboard), `openapi`
with `shapes` and `config_shape` (the description).
"""
