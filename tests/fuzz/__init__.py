"""The equivalence fuzzer: every equivalent spelling of a graph must lift to the same graph."""
