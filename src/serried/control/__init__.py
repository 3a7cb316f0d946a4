"""How do decisions become real processes, and stay true when anything dies at any instant?

In come submissions and what an engine sees; out go orders to the engine. The loop, the same under a real clock and in
the deterministic tests:

    1. what is heard (people's requests, ranks that ended, nodes that fell silent) becomes records;
    2. the fleet's own policy decides on the state that those records lead to, and its decisions become records too;
    3. the records are written to the ledger in one transaction;
    4. only then is anybody answered and is the engine told what to do; what it is told follows from the ledger alone.

A control plane that dies at any point starts again by reading the ledger and looking at the engine.
"""
