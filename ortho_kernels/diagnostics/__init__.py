"""What orthogonality does to weights and representations: spectra (torch alone), plots (matplotlib), an HTML report."""

from .spectra import effective_rank, rankme, representation_eigenvalues, singular_values

__all__ = ["effective_rank", "rankme", "representation_eigenvalues", "singular_values"]
