"""What does an answer look like?

In: the nouns of the rooms below, already decided. Out: a terminal table, a waterfall drawn in characters, and a
self-contained HTML page. Nothing is computed here that a JSON answer does not carry too.
"""
