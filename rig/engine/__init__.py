"""The engine: one process that owns a rig, runs sessions on it and listens to clients.

`process` puts it together; `stop` has a socket and a thread of its own; `work` runs sessions and moves by hand on the
devices that `devices` opens; `clients` and `commands` are the clients' side. ``python -m rig.engine`` runs it alone.
"""
