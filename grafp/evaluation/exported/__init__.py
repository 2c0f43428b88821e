"""Fingerprints that another program computed, for `evaluate.py --embeddings`.

In the order of the flow: reader (which layout a folder has), tables (Parquet) and arrays (those of
the official GraFPrint and NAFP code), common (settings, queries, checks). The layouts are described
in docs/reference/embeddings.md.
"""
