"""What a running sidecar looks like from another terminal.

Reading order: `look` (words, symbols, colours, numbers), `facts` (what the JSON says), `tables` (draws it), `asking`
(the admin address), then the commands: `status`, `explain`, `health`, `control`, `reload`, `top`. They are imported
only by the commands that draw: rich costs a second command nothing.
"""
