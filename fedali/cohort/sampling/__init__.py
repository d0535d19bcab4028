"""Who trains in a round: by size, by loss, of those who are on; and who drops out."""
