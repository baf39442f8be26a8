"""Generated protobuf and gRPC code (``make proto``); imported by ``twstock.rpc.wire`` alone."""
