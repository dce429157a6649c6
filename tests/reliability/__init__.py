"""The long proof that the server keeps its promises under faults: `make soak`; docs/reliability.md has its figures."""
