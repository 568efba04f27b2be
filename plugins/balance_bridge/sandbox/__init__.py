"""The three APIs on this machine, for the demo and the tests.

What stands here has to be able to prove the rest of the package wrong, so it shares no rule with it: amounts, local
times, signatures and expected deliveries are written anew, record by record, in plain Python.
"""
