"""What the process shows over HTTP of its own: never on the data path, never at the application's expense.

Reading order: `bind` (where), `views` (the live objects as JSON), `server` (who may ask for what), `live` (what changes
of the views) and `events` (who is told).
"""
