"""How the ledger's tables came to be, step by step; Alembic walks the steps when a control plane starts.

A new step is a file in `versions`, named in its table. Steps are never edited once released.
"""

#: What Alembic loads from this folder by name.
LOADED = ("env",)
