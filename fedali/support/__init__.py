"""Files, names, memory, terminals: what every part leans on."""
