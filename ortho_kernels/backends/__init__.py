"""Who computes the penalties: `choose` decides, each backend says why it can't where it can't."""
