"""What orthogonality does to weights and representations: spectra (torch alone), plots (matplotlib), a report (HTML)."""

from .spectra import effective_rank, rankme, representation_eigenvalues, singular_values

__all__ = ["effective_rank", "rankme", "representation_eigenvalues", "singular_values"]
