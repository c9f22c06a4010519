"""The one privileged process: owns sockets, starts workers, serves the admin HTTP."""
