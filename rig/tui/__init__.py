"""The operator's terminal UI: shows what the engine says, passes on what the operator wants, owns no capture logic."""
