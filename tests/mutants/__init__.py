"""Mutation testing: changes one expression or statement of the code at a time, and sees whether a test fails.

``make mutants``, or ``python -m mutants`` with ``tests`` on the path. ``operators`` makes the mutants of a file,
``targets`` says which files are mutated and which tests may see it, ``runs`` forks a process for each mutant that runs
those of the tests that execute the changed statement, and ``equivalents`` reads the list of the mutants that no test
can or should see (``equivalent.txt``, each with its reason). A mutant that no test sees and that is not listed fails
the run, and so does an entry of the list that is not, or no longer, a mutant that survives.
"""
