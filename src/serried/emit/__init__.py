"""How does a plan start?

In: a job and one row of its layouts. Out: text that tools people use take as it is: Megatron-LM arguments, a torchtitan
command line, and the predicted step as a Chrome/Perfetto trace.
"""
