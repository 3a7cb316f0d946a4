"""How do people and programs reach the control plane?

HTTP on loopback with a token: the application (FastAPI), its client, its metrics. In comes a request, out goes what the
control loop answers; nothing is decided here.
"""
