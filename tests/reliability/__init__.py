"""The long proof that the server keeps its promises under faults: `make soak`; see docs/reliability.md."""
