"""Our values as protobuf and back: the only package that imports the generated code."""
