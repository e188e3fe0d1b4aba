"""What a rank computes, receives and holds of the penalties: from the partition, and from what ran."""
