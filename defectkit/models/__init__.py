"""Models on crystal graphs, in torch alone."""
