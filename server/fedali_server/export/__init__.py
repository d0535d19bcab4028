"""From a trained model to a bundle for devices, and back."""
