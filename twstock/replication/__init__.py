"""One replicated log: Raft as a pure state machine, its disk, and the service around them."""
