"""Edge SDK of FedAli: onnxruntime and numpy, never torch."""
