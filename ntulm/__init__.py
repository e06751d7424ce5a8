"""NTULM: social post embeddings enriched with non-textual units (Li et al. 2022)."""

__version__ = "0.1.0"
