"""Speed, memory and scale of the simulator, beside Flower with Ray and pfl-research on the same work."""
