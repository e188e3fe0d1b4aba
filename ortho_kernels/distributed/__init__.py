"""Many ranks: which holds what of a weight, who computes what of it, and what they send each other."""
