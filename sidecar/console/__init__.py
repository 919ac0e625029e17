"""What a running sidecar looks like from another terminal.

Reading order: `status` (asks the admin address), `tables` (draws the answer). Both are imported only by the
commands that draw: rich costs a second command nothing.
"""
