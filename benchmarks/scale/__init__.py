"""What a rank computes, receives and holds of the penalties: from the plan, and from what ran."""
